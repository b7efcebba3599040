"""Steps on a CUDA device: as exact as they say, without waiting, and the same bits however they are taken."""

import warnings

import pytest
import torch

from benchmarks import parts
from capsnet import graphs, step
from capsnet.attacks import margins
from capsnet.config import RunConfig
from capsnet.data import Data, Split
from capsnet.draws import draw
from capsnet.execution import Execution, Settled
from capsnet.fourier import primary_maps
from capsnet.further import altered
from capsnet.kernels import refused
from capsnet.models import build
from capsnet.precision import float32_products
from capsnet.state import TrainingState
from capsnet.step import Steps, step_losses
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

    def computed(precision, dtype, device):
        model = build(config.model_copy(update={"precision": precision}), torch.Generator().manual_seed(2)).to(device, dtype)
        with float32_products(precision):
            loss, _ = step_losses(model, config.reconstruction_weight, images.to(device, dtype), labels.to(device))
            loss.backward()
            gradients = torch.cat([p.grad.flatten() for p in model.parameters()])
            return [value.detach().cpu().double() for value in (model.scores(images.to(device, dtype)), loss, gradients)]

    wanted = computed("fp32", torch.float64, torch.device("cpu"))
    for mine, theirs in zip(computed(precision, torch.float32, CUDA), wanted, strict=True):
        assert (mine - theirs).norm() < LIMITS[precision] * theirs.norm()


def test_the_spectrum_is_the_plain_convolution(generator):
    first, second = torch.nn.Conv2d(1, 64, 9).double(), torch.nn.Conv2d(64, 64, 9, 2).double()
    images = torch.rand(32, 1, 28, 28, generator=generator, dtype=torch.float64)
    wanted = second(first(images).relu())
    with float32_products("fp32"):
        found = primary_maps(images.float().to(CUDA), first.float().to(CUDA), second.float().to(CUDA), torch.float32)
    assert (found.double().cpu() - wanted).norm() < 5e-6 * wanted.norm()


@pytest.mark.parametrize("precision", LIMITS)
def test_an_attack_of_the_papers_network_is_that_of_a_cpu_but_for_rounding(precision, generator):
    """Where gradients are next to 0, rounding turns them, which hardly moves a margin."""
    model = build(RunConfig(precision="fp32"), generator)
    test = Split(torch.randint(0, 256, (200, 1, 28, 28), generator=generator, dtype=torch.uint8), torch.arange(200) % 10)
    there = Split(test.images.to(CUDA), test.labels.to(CUDA))
    wanted = altered("fgsm_4", test, model)
    model = model.to(CUDA)
    model.precision = precision
    found = altered("fgsm_4", there, model).cpu()
    with torch.no_grad():
        before, cpu, gpu = (
            margins(model.scores(images.to(CUDA).float() / 255), there.labels) for images in (test.images, wanted, found)
        )
    assert (found == wanted).double().mean() > {"fp32": 0.99, "tf32": 0.9, "bf16": 0.8}[precision]
    assert (before - gpu).mean() > 0.8 * (before - cpu).mean() > 0


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
@pytest.mark.parametrize(
    "changes",
    [{}, {"augmentation": "crop(size=14)"}, {"gradient_clip": 1.0}, KERNELS, KERNELS | {"primary_coupling": True}],
    ids=str,
)
def test_no_step_waits_for_the_device(tiny, compile, graph, changes):
    """What a graph replays can't; that it was captured shows that its steps don't."""
    config = tiny(**changes)
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
    """The last batch of an epoch is smaller, of the same size, or the only one; the learning rate changes with every step.

    A compiler is shown the images of a step in one way for a graph and in another one without, and may round otherwise.
    """
    found = []
    for graph in ("off", "on"):
        config = tiny(epochs=3, **changes)
        state = TrainingState(config, CUDA)
        history = list(train(state, data(config), execution=Execution(compile, graph)))
        found.append((weights(state), [m.train_loss for m in history], [m.train_error for m in history]))
    if compile == "off":
        torch.testing.assert_close(found[0][0], found[1][0], rtol=0, atol=0)
        assert found[0][1:] == found[1][1:]
    else:
        assert found[0][1] == pytest.approx(found[1][1], rel=2e-2 if "precision" in changes else 1e-3)


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
    step._kept.clear()  # as if another process went on, which compiles anew
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


@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("precision", LIMITS)
def test_a_compiled_step_of_the_papers_network_is_the_eager_one(precision, coupled):
    """With the kernels that it is made for."""
    config = RunConfig(precision=precision, batch_size=128, primary_coupling=coupled)
    state, digits = TrainingState(config, CUDA), data(config, 128)
    draws = draw(digits.training, 1, config.augment, False, state.generators).to(CUDA)
    done, found = torch.zeros((), dtype=torch.float64, device=CUDA), []
    with computing(precision, CUDA):
        for losses in (step.drawn_losses, step._compiled(config)):
            own = config.reconstruction_weight, digits.training, draws, None, config.augment, config.objective
            loss, _ = losses(state.model, *own, done, 100)
            gradients = torch.autograd.grad(loss, list(state.model.parameters()))
            found.append([loss.double(), torch.cat([g.double().flatten() for g in gradients])])
    for eager, compiled in zip(*found, strict=True):
        assert (compiled - eager).norm() < 2 * LIMITS[precision] * eager.norm()
    assert not refused(CUDA)


def test_where_a_capture_fails_a_run_goes_on_and_the_next_one_captures(tiny, monkeypatch):
    monkeypatch.setattr("capsnet.execution._failed", {"compile": set(), "graph": set()})
    config = tiny(epochs=60)  # long enough to be captured

    def trained(graph):
        state = TrainingState(config, CUDA)
        list(train(state, data(config), execution=Execution("off", graph)))
        return weights(state)

    wanted, own = trained("off"), graphs.Graphs._step

    def waiting(self, size):
        own(self, size)
        if torch.cuda.is_current_stream_capturing():
            self.rate.item()

    with monkeypatch.context() as patch:
        patch.setattr(graphs.Graphs, "_step", waiting)
        with pytest.warns(UserWarning, match="steps are not replayed, because"):
            found = trained("auto")
    assert torch.equal(found, wanted)
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    assert torch.equal(trained("on"), wanted)


def test_memory_of_routing_grows_with_the_batch_only():
    """Twice the passes, about the same peak of a step; twice the images, at most twice of it."""
    peaks = {}
    for batch, iterations in ((64, 3), (64, 6), (128, 3)):
        config = RunConfig(batch_size=batch, routing_iterations=iterations, precision="bf16")  # which has no large spectra
        state = TrainingState(config, CUDA)
        with computing(config.precision, CUDA):
            step_on = parts.whole(state, data(config, batch).training)
            step_on()  # what is allocated once, compiled and checked at first is no part of it
            state.optimizer.zero_grad()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            step_on()
            peaks[batch, iterations] = torch.cuda.max_memory_allocated() - before
    assert peaks[64, 6] < 1.5 * peaks[64, 3]
    assert peaks[128, 3] < 2.2 * peaks[64, 3]


def test_an_epoch_of_the_papers_network_takes_at_most_0_35_s_on_an_h200(tiny):
    """60,000 images at batch 128, validation outside the clock."""
    if "H200" not in torch.cuda.get_device_name():
        pytest.skip("the limit is of an H200")
    config = RunConfig(precision="bf16", validation_size=0, epochs=8)
    state = TrainingState(config, CUDA)
    history = list(train(state, data(config), execution=Execution("on", "on")))
    assert not refused(CUDA)
    assert sorted(m.seconds for m in history[2:])[len(history[2:]) // 2] <= 0.35
    assert evaluate(state.model, data(config).test, 1000).scores.isfinite().all()
