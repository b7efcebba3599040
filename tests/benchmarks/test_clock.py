"""Measuring in turn, with a clock that only moves when it is told to; and with the real one."""

import gc
import time
import weakref

import pytest
import torch

from benchmarks import clock
from benchmarks.clock import Spread, alternate, differences, ratios, replay_of, timed, total


class Clock:
    """Seconds that pass only by work."""

    def __init__(self):
        self.seconds, self.done = 100.0, []

    def __call__(self):
        return self.seconds

    def work(self, name, *durations):
        """A pass that takes these seconds one after the other, and then the last of them."""
        left = list(durations)

        def run():
            taken = left.pop(0) if len(left) > 1 else left[0]
            self.seconds += taken
            self.done.append(name)
            return taken

        return run


def test_passes_take_turns_and_the_first_round_does_not_count():
    clock = Clock()
    passes = {"a": clock.work("a", 50, 1, 2, 3), "b": clock.work("b", 70, 10, 30, 20)}
    found = alternate(passes, 0, least=3, now=clock)
    assert clock.done == list("abababab")
    assert found == {"a": Spread((1, 2, 3)), "b": Spread((10, 30, 20))}


@pytest.mark.parametrize(("budget", "rounds"), [(0, 3), (6, 5), (11.9, 10), (12, 11), (1000, 25)])
def test_rounds_fill_the_budget_and_no_more(budget, rounds):
    """A round takes 1 s, and so does the warm-up."""
    clock = Clock()
    found = alternate({"a": clock.work("a", 0.5), "b": clock.work("b", 0.5)}, budget, least=3, most=25, now=clock)
    assert found["a"].n == found["b"].n == rounds
    assert clock.seconds - 100 == rounds + 1


def test_a_spread_is_its_samples():
    spread = Spread((4.0, 1.0, 100.0))
    assert (spread.median, spread.low, spread.high, spread.n) == (4, 1, 100, 3)
    assert Spread((1.0, 2.0)).median == 1.5
    assert spread.map(lambda x: 2 * x) == Spread((8.0, 2.0, 200.0))


def test_what_disturbs_a_whole_round_cancels_out_of_ratios():
    slow, fast = Spread((6.0, 60.0, 6.6)), Spread((2.0, 20.0, 2.2))
    assert ratios(slow, fast).samples == pytest.approx((3, 3, 3))
    assert differences(slow, fast).samples == pytest.approx((4, 40, 4.4))
    assert total([slow, fast]).samples == pytest.approx((8, 80, 8.8))


def test_rounds_of_different_measurements_are_not_paired():
    with pytest.raises(ValueError, match="zip"):
        ratios(Spread((1.0, 2.0)), Spread((1.0,)))


@pytest.mark.parametrize(
    ("first", "later", "shortest", "calls"),
    [
        (0.5, 0.25, 2.0, [1 + 1 + 8, 8]),  # the first call is warming up, the second says how many are timed
        (0.5, 0.25, 0.125, [1 + 1 + 1, 1]),
        (64.0, 32.0, 1.0, [1 + 1, 1]),  # a long call is enough to know that one is timed
    ],
)
def test_short_work_is_timed_many_calls_at_once(monkeypatch, first, later, shortest, calls):
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    run = timed(clock.work("a", first, later), torch.device("cpu"), shortest=shortest)
    assert run() == later
    assert len(clock.done) == calls[0]
    assert run() == later
    assert len(clock.done) == sum(calls)


def test_what_captured_work_reads_is_held_as_long_as_its_replay(monkeypatch):
    """Here a graph knows addresses alone, as on a device."""
    replays = []

    def recorded(work, pool, stream):
        work()
        return lambda: replays.append(1)

    monkeypatch.setattr(clock, "aside", lambda work: work())
    monkeypatch.setattr(clock, "recorded", recorded)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 0))
    monkeypatch.setattr(torch.cuda, "Stream", lambda: None)

    def part():
        images = torch.ones(3)
        return weakref.ref(images), lambda: images + 1

    images, work = part()
    replay = replay_of(work)
    del work
    gc.collect()
    replay()
    assert replays
    assert images() is not None
    del replay
    gc.collect()
    assert images() is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_cuda_work_is_timed_to_its_end():
    """Launching a product takes microseconds, computing it milliseconds."""
    device = torch.device("cuda")
    a = torch.randn(8192, 8192, device=device)
    run = timed(lambda: a @ a, device)
    run()
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(10):
        a @ a
    torch.cuda.synchronize()
    assert run() == pytest.approx((time.perf_counter() - started) / 10, rel=0.5)
    assert run() > 2 * 8192**3 / 2e15


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_captured_work_is_done_each_time_and_without_the_processors_part():
    """Two hundred additions to a few numbers: launched one by one they take a millisecond."""
    device, total = torch.device("cuda"), torch.zeros(8, device="cuda")

    def work():
        for _ in range(200):
            total.add_(1)

    replay = replay_of(work)
    total.zero_()
    for _ in range(3):
        replay()
    assert total.tolist() == [600.0] * 8
    times = [min(run() for _ in range(5)) for run in (timed(work, device), timed(work, device, captured=True))]
    assert times[1] < 0.7 * times[0]
