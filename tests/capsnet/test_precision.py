"""What precision means: which numbers are rounded, how far results move, and where it can't be had."""

import pytest
import torch

from capsnet.errors import InputError
from capsnet.models import build, lengths
from capsnet.precision import cost_of_bf16, float32_products, remarks, require
from capsnet.state import TrainingState
from capsnet.step import step_losses
from capsnet.training import evaluate, train

SEED = 3
LIMITS = {"fp32": 5e-6, "bf16": 4e-2}
"""|difference| / |float64's| of scores, loss and gradients of a whole step; measured: 6e-7 and 1.6e-2."""


def step(config, precision, dtype=torch.float32):
    """Scores, loss and gradients of one step on fixed images."""
    model = build(config.model_copy(update={"precision": precision}), torch.Generator().manual_seed(SEED)).to(dtype)
    random = torch.Generator().manual_seed(SEED + 1)
    images = torch.rand(16, *config.facts.shape, generator=random).to(dtype)
    labels = torch.randint(0, 10, (16,), generator=random)
    loss, _ = step_losses(model, config.reconstruction_weight, images, labels)
    loss.backward()
    gradients = torch.cat([p.grad.flatten() for p in model.parameters()])
    return [lengths(model.encode(images)).detach(), loss.detach()[None], gradients]


@pytest.mark.parametrize("by_frequency", [True, False])
@pytest.mark.parametrize("precision", LIMITS)
def test_a_step_is_as_close_to_float64_as_the_precision_lets_it(tiny, precision, by_frequency, monkeypatch):
    config = tiny(reconstruction_weight=1e-2)
    monkeypatch.setattr("capsnet.fourier.pays", lambda *_: False)
    wanted = step(config, "fp32", torch.float64)
    monkeypatch.setattr("capsnet.fourier.pays", lambda *_: by_frequency)
    found = step(config, precision)
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine.dtype == torch.float32
        off = ((mine.double() - theirs).norm() / theirs.norm()).item()
        assert off < LIMITS[precision]
    if precision == "bf16":
        assert off > 10 * LIMITS["fp32"], "nothing was rounded"


@pytest.mark.parametrize(("ratio", "told"), [(1.62, True), (1.05, False), (0.5, False)])
def test_a_cpu_that_is_slow_in_bf16_is_told_once(tiny, cpu, ratio, told, monkeypatch):
    monkeypatch.setattr("capsnet.precision.cost_of_bf16", lambda: ratio)
    found = remarks([tiny(), tiny(precision="bf16"), tiny(precision="bf16", seed=1)], cpu)
    assert len(found) == told
    assert all("bf16 will be slower than fp32" in line and "1.6 times" in line for line in found)


@pytest.mark.parametrize(("precision", "device"), [("bf16", "cuda"), ("fp32", "cpu")])
def test_nothing_is_measured_where_no_cpu_multiplies_in_bf16(tiny, precision, device, monkeypatch):
    monkeypatch.setattr("capsnet.precision.cost_of_bf16", lambda: pytest.fail("it was measured"))
    assert remarks([tiny(precision=precision)], torch.device(device)) == []


def test_what_bf16_costs_is_a_ratio_of_times(monkeypatch):
    """Of rounds that take 100, 1, 2, 3, 4 and 5 times as long in bfloat16; the first, which compiles, doesn't count."""
    taken = []

    def seconds(left, _):
        taken.append(left.dtype)
        return (0.1, 0.001, 0.002, 0.003, 0.004, 0.005)[len(taken) // 2 - 1] if left.dtype == torch.bfloat16 else 0.001

    monkeypatch.setattr("capsnet.precision._seconds", seconds)
    assert cost_of_bf16() == pytest.approx(3)
    assert taken[:4] == [torch.float32, torch.bfloat16] * 2, "not in turn"


def test_a_cpu_without_units_for_bf16_is_not_waited_for(monkeypatch):
    taken = []
    monkeypatch.setattr("capsnet.precision._seconds", lambda left, _: taken.append(1) or (1.0 if len(taken) % 2 == 0 else 0.01))
    assert cost_of_bf16() == pytest.approx(100)
    assert len(taken) == 2


def test_weights_moments_and_what_is_given_out_are_float32(tiny, cpu, data_of):
    config = tiny(precision="bf16", epochs=1)
    state = TrainingState(config, cpu)
    data = data_of(config)
    list(train(state, data))
    assert {tensor.dtype for tensor in state.moving()} == {torch.float32}
    images = data.test.batch(slice(0, 3))
    capsules = state.model.encode(images)
    assert capsules.dtype == state.model.reconstruct(capsules, data.test.labels[:3]).dtype == torch.float32
    assert evaluate(state.model, data.test, 100).scores.dtype == torch.float32


def test_a_network_answers_in_its_runs_precision(tiny, generator):
    """Whoever asks: the figures show what the run did."""
    images = torch.rand(4, 1, 16, 16, generator=generator)
    models = [build(tiny(precision=p), torch.Generator().manual_seed(SEED)) for p in ("fp32", "bf16")]
    assert not torch.equal(models[0].scores(images), models[1].scores(images))


def test_training_in_bf16_learns_as_in_fp32(tiny, cpu, data_of):
    """Not the same bits, and the same course."""
    errors = []
    for precision in ("fp32", "bf16"):
        config = tiny(precision=precision, epochs=12, train_size=400, learning_rate=5e-3)
        state = TrainingState(config, cpu)
        *_, last = train(state, data_of(config))
        errors.append((last.train_loss, last.validation_error))
    assert errors[0] != errors[1]
    assert errors[1][0] == pytest.approx(errors[0][0], rel=0.15)
    assert abs(errors[1][1] - errors[0][1]) < 5


def test_tf32_is_refused_on_a_cpu_before_anything_is_trained(tiny, cpu, data_of):
    config = tiny(precision="tf32")
    with pytest.raises(InputError, match=r"precision tf32 is for CUDA devices, and this is a CPU; choices here: fp32, bf16"):
        require(config, cpu)
    state = TrainingState(config, cpu)
    with pytest.raises(InputError, match="tf32"):
        next(train(state, data_of(config)))
    assert state.history == []


def test_old_cards_are_told_what_they_have(tiny, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    for precision in ("tf32", "bf16"):
        with pytest.raises(InputError, match=f"precision {precision} needs .* 8.0, which Tesla T4 is not; choices: fp32"):
            require(tiny(precision=precision), torch.device("cuda"))
    require(tiny(), torch.device("cuda"))


@pytest.mark.parametrize(("precision", "wanted"), [("fp32", "ieee"), ("tf32", "tf32"), ("bf16", "ieee")])
def test_float32_products_on_cuda_are_what_the_precision_says(precision, wanted):
    """torch's own default would be tf32 in convolutions, which would make fp32 a lie."""
    places = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = [place.fp32_precision for place in places]
    with float32_products(precision):
        assert [place.fp32_precision for place in places] == [wanted, wanted]
    assert [place.fp32_precision for place in places] == before
