"""Steps on a CUDA device: as exact as they say, without waiting, and the same bits however they are taken."""

import warnings

import pytest
import torch

from capsnet.config import RunConfig
from capsnet.data import Data, Split
from capsnet.draws import Batch, draw
from capsnet.execution import Execution, Settled
from capsnet.fourier import primary_maps
from capsnet.models import build
from capsnet.precision import float32_products
from capsnet.state import TrainingState
from capsnet.step import Steps, step_losses, training_step
from capsnet.training import computing, evaluate, train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]

CUDA = torch.device("cuda")
LIMITS = {"fp32": 1e-5, "tf32": 1e-2, "bf16": 5e-2}
"""|difference| / |float64's| of scores, loss and gradients of a whole step."""

KERNELS = {"precision": "bf16", "conv_channels": 64, "primary_types": 8, "primary_dim": 8}
"""A network whose convolutions have kernels of their own on Hopper."""


def data(config, count=None):
    """Digits of the right shape and number, made up."""
    random = torch.Generator().manual_seed(0)

    def split(number):
        images = torch.randint(0, 256, (number, *config.facts.shape), generator=random, dtype=torch.uint8)
        return Split(images.to(CUDA), torch.randint(0, 10, (number,), generator=random).to(CUDA))

    return Data(split(count or config.training_images), split(config.validation_size), split(100), "")


def weights(state):
    return torch.cat([tensor.flatten() for tensor in state.moving()])


@pytest.mark.parametrize("precision", LIMITS)
def test_a_step_is_as_close_to_float64_as_the_precision_lets_it(tiny, precision):
    config = tiny(dataset="mnist", train_size=100, conv_channels=64, primary_types=8, reconstruction_weight=1e-2)
    random = torch.Generator().manual_seed(1)
    images, labels = torch.rand(16, 1, 28, 28, generator=random), torch.randint(0, 10, (16,), generator=random)

    def step(precision, dtype, device):
        model = build(config.model_copy(update={"precision": precision}), torch.Generator().manual_seed(2)).to(device, dtype)
        with float32_products(precision):
            loss, _ = step_losses(model, config.reconstruction_weight, images.to(device, dtype), labels.to(device))
            loss.backward()
            gradients = torch.cat([p.grad.flatten() for p in model.parameters()])
            return [value.detach().cpu().double() for value in (model.scores(images.to(device, dtype)), loss, gradients)]

    wanted = step("fp32", torch.float64, torch.device("cpu"))
    for mine, theirs in zip(step(precision, torch.float32, CUDA), wanted, strict=True):
        assert (mine - theirs).norm() < LIMITS[precision] * theirs.norm()


def test_the_spectrum_is_the_plain_convolution(generator):
    first, second = torch.nn.Conv2d(1, 64, 9).double(), torch.nn.Conv2d(64, 64, 9, 2).double()
    images = torch.rand(32, 1, 28, 28, generator=generator, dtype=torch.float64)
    wanted = second(first(images).relu())
    with float32_products("fp32"):
        found = primary_maps(images.float().to(CUDA), first.float().to(CUDA), second.float().to(CUDA), torch.float32)
    assert (found.double().cpu() - wanted).norm() < 5e-6 * wanted.norm()


@pytest.mark.parametrize("precision", LIMITS)
def test_gradients_lie_as_their_weights(tiny, precision):
    """Else each step would copy them."""
    config = tiny(dataset="mnist", train_size=100, conv_channels=64, primary_types=8, precision=precision)
    model = TrainingState(config, CUDA).model
    model.spectral = True
    images, labels = torch.rand(100, 1, 28, 28, device=CUDA), torch.zeros(100, dtype=torch.int64, device=CUDA)
    assert model.takes_spectra(images) == (precision == "fp32")
    loss, _ = step_losses(model, config.reconstruction_weight, images, labels)
    (gradient,) = torch.autograd.grad(loss, model.primary.conv.weight)
    assert gradient.stride() == model.primary.conv.weight.stride()


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("augmentation", ["shift(pixels=2)", "crop(size=14)"])
def test_no_step_waits_for_the_device(tiny, compile, graph, augmentation):
    config = tiny(augmentation=augmentation)
    state = TrainingState(config, CUDA)
    with computing(config.precision, CUDA):
        digits = data(config)
        steps = Steps(state, digits, Settled(compile, graph))
        draws = draw(digits.training, 1, config.augment, False, state.generators)
        for _ in range(2):
            steps.begin(draws, [1e-3] * 4)
            for i in range(4):  # what is compiled and chosen at first may wait
                steps.take(i)
        steps.begin(draws, [1e-3] * 4)
        try:
            with warnings.catch_warnings(action="ignore"):  # it warns that it is a prototype
                torch.cuda.set_sync_debug_mode("error")
            for i in range(4):
                steps.take(i)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("compile", ["off", "on"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"batch_size": 25}, {"batch_size": 200}, {"precision": "bf16"}, {"hidden_capsules": (16,)}, KERNELS],
    ids=str,
)
def test_a_graph_replays_what_steps_do(tiny, compile, changes):
    """The last batch of an epoch is smaller, of the same size, or the only one; the learning rate changes with every step."""
    found = []
    for graph in ("off", "on"):
        config = tiny(epochs=3, **changes)
        state = TrainingState(config, CUDA)
        history = list(train(state, data(config), execution=Execution(compile, graph)))
        found.append((weights(state), [m.train_loss for m in history], [m.train_error for m in history]))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=0, atol=0)
    assert found[0][1:] == found[1][1:]


@pytest.mark.parametrize("execution", [Execution("off", "off"), Execution("off", "on"), Execution("on", "on")], ids=str)
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_bit(tiny, execution, tmp_path):
    config = tiny(epochs=4)
    whole = TrainingState(config, CUDA)
    list(train(whole, data(config), execution=execution))
    broken = TrainingState(config, CUDA)
    run = train(broken, data(config), execution=execution)
    next(run), next(run)
    broken.save(tmp_path / "state")
    run.close()
    resumed = TrainingState.load(tmp_path / "state", CUDA)
    list(train(resumed, data(config), execution=execution))
    assert torch.equal(weights(resumed), weights(whole))
    assert [m.train_loss for m in resumed.history] == [m.train_loss for m in whole.history]


@pytest.mark.parametrize("precision", LIMITS)
def test_compiled_and_captured_steps_learn_as_eager_ones(tiny, precision):
    from pathlib import Path

    from capsnet.data import read

    losses = []
    for execution in (Execution("off", "off"), Execution("on", "on")):
        config = tiny(epochs=10, train_size=400, precision=precision, learning_rate=5e-3)
        state = TrainingState(config, CUDA)
        *_, last = train(state, read(config, Path("/nowhere"), CUDA), execution=execution)
        losses.append(last.train_loss)
    assert losses[1] == pytest.approx(losses[0], rel=0.1)


def test_memory_of_routing_grows_with_the_batch_only():
    """Twice the passes, about the same peak of a step; twice the images, at most twice of it."""
    peaks = {}
    for batch, iterations in ((64, 3), (64, 6), (128, 3)):
        config = RunConfig(batch_size=batch, routing_iterations=iterations)
        state, random = TrainingState(config, CUDA), torch.Generator().manual_seed(1)
        images, labels = torch.rand(batch, 1, 28, 28, generator=random), torch.randint(0, 10, (batch,), generator=random)
        shown = Batch(images.to(CUDA), labels.to(CUDA))
        with computing(config.precision, CUDA):
            training_step(state, shown, 1e-3)  # what is allocated once, compiled and checked at first is no part of it
            state.optimizer.zero_grad()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            training_step(state, shown, 1e-3)
            peaks[batch, iterations] = torch.cuda.max_memory_allocated() - before
    assert peaks[64, 6] < 1.5 * peaks[64, 3]
    assert peaks[128, 3] < 2.2 * peaks[64, 3]


def test_an_epoch_of_the_papers_network_takes_at_most_0_35_s_on_an_h200(tiny):
    """60,000 images at batch 128, validation outside the clock."""
    if "H200" not in torch.cuda.get_device_name():
        pytest.skip("the limit is of an H200")
    config = RunConfig(precision="bf16", validation_size=0, epochs=8)
    state = TrainingState(config, CUDA)
    history = list(train(state, data(config)))
    assert sorted(m.seconds for m in history[2:])[len(history[2:]) // 2] <= 0.35
    assert evaluate(state.model, data(config).test, 1000).scores.isfinite().all()
