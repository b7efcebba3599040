"""Each schedule against its formula and against torch.optim.lr_scheduler."""

import math
import random

import pytest
import torch
from torch.optim import lr_scheduler

from capsnet.errors import InputError
from capsnet.schedules import SCHEDULES, constant, cosine, exponential, one_cycle, plateau, step
from capsnet.variants import parse

TOTAL = 50


def multipliers(schedule, total=TOTAL):
    return [schedule(i, total, ()) for i in range(total)]


def oracle(make, steps=TOTAL):
    """The learning rates of torch's scheduler, in multiples of a base rate of 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0, momentum=0.9)
    scheduler, rates = make(optimizer), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_constant():
    assert multipliers(constant()) == [1.0] * TOTAL


@pytest.mark.parametrize(("gamma", "every"), [(0.5, 2), (0.96, 20), (1.0, 3), (0.1, 1)])
def test_exponential_is_torchs(gamma, every):
    expected = oracle(lambda o: lr_scheduler.ExponentialLR(o, gamma ** (1 / every)))
    assert multipliers(exponential(gamma=gamma, every=every)) == pytest.approx(expected, rel=1e-9)


def test_exponential_of_the_authors_code():
    """0.96 per 2000 steps, continuously, of 1e-3 down to 1e-6."""
    schedule = exponential(gamma=0.96, every=2000, floor=0.001)
    assert schedule(1000, 300_000, ()) == pytest.approx(math.sqrt(0.96))
    assert schedule(2000, 300_000, ()) == pytest.approx(0.96)
    assert schedule(300_000, 300_000, ()) == pytest.approx(0.96**150)
    assert schedule(1_000_000, 1_000_000, ()) == 0.001


@pytest.mark.parametrize(("gamma", "every"), [(0.5, 2), (0.1, 17), (0.9, 1)])
def test_step_is_torchs(gamma, every):
    expected = oracle(lambda o: lr_scheduler.StepLR(o, every, gamma))
    assert multipliers(step(gamma=gamma, every=every)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("final", [0.0, 0.1, 1.0])
def test_cosine_is_torchs(final):
    expected = oracle(lambda o: lr_scheduler.CosineAnnealingLR(o, TOTAL, eta_min=final))
    assert multipliers(cosine(final=final)) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("total", [2, 3, 10, 50, 101])
@pytest.mark.parametrize(("rise", "start", "final"), [(0.3, 0.04, 4e-6), (0.4, 0.1, 0.01), (0.05, 0.5, 0.001)])
def test_one_cycle_is_torchs(total, rise, start, final):
    def make(optimizer):
        return lr_scheduler.OneCycleLR(
            optimizer, 1.0, total, pct_start=rise, div_factor=1 / start, final_div_factor=start / final
        )

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0, momentum=0.9)
    scheduler, expected = make(optimizer), []
    for i in range(total):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if i < total - 1:
            scheduler.step()
    assert multipliers(one_cycle(rise=rise, start=start, final=final), total) == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_one_cycles_defaults_are_torchs():
    expected = oracle(lambda o: lr_scheduler.OneCycleLR(o, 1.0, TOTAL + 1), TOTAL)
    assert multipliers(one_cycle(), TOTAL + 1)[:TOTAL] == pytest.approx(expected, rel=1e-6)


def test_one_cycle_and_cosine_of_a_single_step_are_defined():
    assert 0 <= one_cycle()(0, 1, ()) <= 1
    assert cosine()(0, 1, ()) == 1


@pytest.mark.parametrize("patience", [0, 1, 3])
@pytest.mark.parametrize("floor", [0.0, 0.2])
def test_plateau_is_torchs_with_threshold_0(patience, floor):
    random_ = random.Random(patience)
    errors = [round(random_.uniform(0, 8) + 8 / (1 + i), 1) for i in range(40)] + [3.0] * 10  # with ties
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    torchs = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=patience, threshold=0, min_lr=floor, eps=0)
    ours = plateau(factor=0.5, patience=patience, floor=floor)
    seen = []
    for i in range(len(errors)):
        seen.append(ours(10 * i, 10 * len(errors), errors[:i]))
        assert seen[-1] == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        torchs.step(errors[i])
    assert len(set(seen)) > 2, "the errors made it fall"


def test_plateau_looks_at_the_validation_errors_and_not_at_the_step():
    schedule = plateau(factor=0.5, patience=1)
    assert [schedule(i, 100, (5.0, 4.0)) for i in (0, 99)] == [1, 1]
    assert [schedule(0, 100, (5.0, *[4.0] * n)) for n in (1, 2, 3, 4, 5)] == [1, 1, 0.5, 0.5, 0.25]


CALLS = [
    "constant",
    "exponential(gamma=0.5, every=7)",
    "step(gamma=0.5, every=7)",
    "cosine(final=0.1)",
    "one_cycle",
    "plateau(factor=0.5, patience=0)",
]


@pytest.mark.parametrize("text", CALLS)
def test_every_schedule_is_listed_above(text):
    assert {call.partition("(")[0] for call in CALLS} == SCHEDULES.keys()
    assert parse(text, SCHEDULES, "lr_schedule").made(0, TOTAL, ()) > 0


@pytest.mark.parametrize("warmup", [0, 1, 10])
@pytest.mark.parametrize("text", CALLS)
def test_warmup_rises_linearly_to_the_first_value_and_shifts_the_rest(text, warmup):
    plain = parse(text, SCHEDULES, "lr_schedule").made
    opened = text.removesuffix(")") + (", " if "(" in text else "(") + f"warmup={warmup})"
    warmed = parse(opened, SCHEDULES, "lr_schedule").made
    errors = (4.0, 5.0, 6.0)
    for i in range(warmup):
        assert warmed(i, TOTAL + warmup, errors) == pytest.approx(plain(0, TOTAL, ()) * (i + 1) / (warmup + 1))
    for i in range(TOTAL):
        assert warmed(i + warmup, TOTAL + warmup, errors) == plain(i, TOTAL, errors)


@pytest.mark.parametrize("text", CALLS)
def test_a_schedule_is_a_pure_function(text):
    """In any order, twice over, and by another instance: the same numbers; its arguments are left alone."""
    errors = [9.0, 8.0, 8.0, 8.5]
    arguments = [(i, errors[:n]) for i in range(TOTAL) for n in range(5)]
    expected = [parse(text, SCHEDULES, "lr_schedule").made(i, TOTAL, list(past)) for i, past in arguments]
    schedule = parse(text, SCHEDULES, "lr_schedule").made
    order = list(range(len(arguments))) * 2
    random.Random(0).shuffle(order)
    for k in order:
        assert schedule(arguments[k][0], TOTAL, arguments[k][1]) == expected[k]
    assert errors == [9.0, 8.0, 8.0, 8.5]
    assert all(0 < value <= 1 for value in expected)


def test_the_numbers_in_the_docstrings():
    assert [round(exponential(gamma=0.5, every=2)(i, 9, ()), 3) for i in range(4)] == [1, 0.707, 0.5, 0.354]
    assert "gives 1, 0.707, 0.5, 0.354" in exponential.__doc__
    assert [step(gamma=0.5, every=2)(i, 9, ()) for i in range(5)] == [1, 1, 0.5, 0.5, 0.25]
    assert "gives 1, 1, 0.5, 0.5, 0.25" in step.__doc__


@pytest.mark.parametrize(
    ("text", "parameter"),
    [
        ("constant(warmup=-1)", "warmup"),
        ("exponential(gamma=0, every=1)", "gamma"),
        ("exponential(gamma=1.01, every=1)", "gamma"),
        ("exponential(gamma=0.5, every=0)", "every"),
        ("exponential(gamma=0.5, every=1, floor=-0.1)", "floor"),
        ("exponential(gamma=0.5, every=1, floor=2)", "floor"),
        ("step(gamma=-1, every=1)", "gamma"),
        ("step(gamma=2, every=1)", "gamma"),
        ("step(gamma=0.5, every=-2)", "every"),
        ("step(gamma=0.5, every=0)", "every"),
        ("cosine(final=1.5)", "final"),
        ("cosine(final=-1)", "final"),
        ("one_cycle(rise=0)", "rise"),
        ("one_cycle(rise=1)", "rise"),
        ("one_cycle(start=0)", "start"),
        ("one_cycle(start=2)", "start"),
        ("one_cycle(final=-1)", "final"),
        ("one_cycle(final=2)", "final"),
        ("plateau(factor=1, patience=1)", "factor"),
        ("plateau(factor=0, patience=1)", "factor"),
        ("plateau(factor=0.5, patience=-1)", "patience"),
        ("plateau(factor=0.5, patience=1, floor=2)", "floor"),
    ],
)
def test_a_value_out_of_range_is_refused(text, parameter):
    with pytest.raises(InputError, match=rf"^lr_schedule '.*': {parameter} (must be|is)") as caught:
        parse(text, SCHEDULES, "lr_schedule")
    assert text in str(caught.value)
