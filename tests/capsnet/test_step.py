"""How an epoch's steps are taken. What a CUDA graph would replay is done here step by step: all but the capture itself."""

import subprocess
import sys

import pytest
import torch

from capsnet import graphs, losses, step, training
from capsnet.data import Split
from capsnet.draws import draw
from capsnet.execution import Settled
from capsnet.models import build
from capsnet.state import TrainingState
from capsnet.training import train


@pytest.fixture
def captured(monkeypatch):
    """Let a CPU take steps as a GPU does from a graph: what is recorded is not done, and each replay does it. -> warm-ups."""
    warmed = []

    def aside(work):
        warmed.append(work)
        work()

    monkeypatch.setattr(graphs, "aside", aside)
    monkeypatch.setattr(graphs, "recorded", lambda work, pool, stream: work)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 0))
    monkeypatch.setattr(graphs, "_stream", lambda _: None)
    settled = training.Execution.settle
    monkeypatch.setattr(training.Execution, "settle", lambda *_: Settled(compile=False, graph=True))
    yield warmed
    monkeypatch.setattr(training.Execution, "settle", settled)


def result(config, data, state=None):
    state = state or TrainingState(config, torch.device("cpu"))
    list(train(state, data))
    numbers = [(m.train_loss, m.train_error, m.validation_error, m.learning_rate) for m in state.history]
    return torch.cat([tensor.flatten() for tensor in state.moving()]), numbers


CASES = [
    {},
    {"batch_size": 25},
    {"batch_size": 200},
    {"augmentation": "none"},
    {"lr_schedule": "plateau(factor=0.5, patience=0)"},
    {"loss": "spread(start=0.1, end=1)"},
]


@pytest.mark.parametrize("changes", CASES, ids=str)
def test_replayed_steps_are_the_steps(tiny, data_of, changes, request):
    """The last batch of an epoch is smaller, of the same size, or the only one; each step has its own images and rate."""
    config = tiny(epochs=3, learning_rate=0.01, **changes)
    weights, numbers = result(config, data_of(config))
    warmed = request.getfixturevalue("captured")
    again, replayed = result(config, data_of(config))
    assert torch.equal(again, weights)
    assert replayed == numbers
    assert len(warmed) == (1 if changes.get("batch_size") else 2), "a capture for each size of batch, once a run"


def test_a_run_that_goes_on_replays_what_an_uninterrupted_one_does(tiny, data_of, captured, tmp_path):
    config = tiny(epochs=4)
    wanted = result(config, data_of(config))
    state = TrainingState(config, torch.device("cpu"))
    run = train(state, data_of(config))
    next(run), next(run)
    state.save(tmp_path / "state")
    found = result(config, data_of(config), TrainingState.load(tmp_path / "state", torch.device("cpu")))
    assert torch.equal(found[0], wanted[0])
    assert found[1] == wanted[1]


def test_reports_between_epochs_are_of_the_last_step(tiny, data_of, captured):
    config = tiny(epochs=1)
    seen = []
    *_, metrics = train(TrainingState(config, torch.device("cpu")), data_of(config), log_interval=1, on_step=seen.append)
    sizes = [32, 32, 32, 4]
    assert sum(s.loss * size for s, size in zip(seen, sizes, strict=True)) / 100 == pytest.approx(metrics.train_loss)


def test_a_step_reads_the_rate_that_is_in_memory(tiny, data_of, captured, monkeypatch):
    """A graph that held the rate of its capture would go on with it."""
    config = tiny(epochs=2, lr_schedule="exponential(gamma=0.5, every=1)")
    rates = []
    monkeypatch.setattr(TrainingState, "set_rate", lambda self, rate: rates.append(float(rate)))
    list(train(TrainingState(config, torch.device("cpu")), data_of(config)))
    taken = rates[6:]  # after two warm-ups of three steps
    assert taken == pytest.approx([3e-3 * 0.5**n for n in range(8)])


def test_a_graph_puts_the_rate_where_the_optimizer_reads_it(tiny, data_of, captured):
    """Into the tensor of 32 bits that it has on CUDA: found and put there in one launch, with no copy after it."""
    config, rates = tiny(epochs=2, lr_schedule="exponential(gamma=0.5, every=1)"), []
    state = TrainingState(config, torch.device("cpu"))
    (group,) = state.optimizer.param_groups
    held = group["lr"] = torch.tensor(1.0)
    plain = state.optimizer.step
    state.optimizer.step = lambda: (rates.append(held.item()), plain())
    list(train(state, data_of(config)))
    assert group["lr"] is held
    assert rates[6:] == torch.tensor([3e-3 * 0.5**n for n in range(8)]).tolist()


def drawn(config, data):
    """An epoch's draws, as training makes them."""
    generators = TrainingState(config, torch.device("cpu")).generators
    return draw(data.training, config.facts.labels, config.augment, config.dropout > 0, generators)


def test_no_tensor_is_read_back_within_an_epoch(tiny, data_of, monkeypatch):
    """Each would wait for the device: the sums come back once, at the epoch's end, and the validation error."""
    config = tiny(epochs=1)
    state, data, read = TrainingState(config, torch.device("cpu")), data_of(config), []
    for name in ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__"):
        plain = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda self, *a, _n=name, _p=plain: read.append(_n) or _p(self, *a))
    steps = step.Steps(state, data, Settled(compile=False, graph=False))
    steps.begin(drawn(config, data), [1e-3] * 4)
    for i in range(4):
        steps.take(i)
    assert read == []
    steps.totals.tolist()
    assert read == ["tolist"]


def test_adams_moments_are_laid_out_as_their_weights(tiny, data_of, tmp_path, monkeypatch):
    """On CUDA weights may lie channels last; fused Adam goes through memory, whatever the order of dimensions is called."""

    def started():
        return TrainingState(config, torch.device("cpu"))

    monkeypatch.setattr("capsnet.state.build", lambda *given: build(*given).to(memory_format=torch.channels_last))
    config = tiny(epochs=3)
    whole = started()
    list(train(whole, data_of(config)))
    broken = started()
    next(train(broken, data_of(config)))
    broken.save(tmp_path / "state")
    resumed = TrainingState.load(tmp_path / "state", torch.device("cpu"))
    again = started()
    again._restore({name: tensor.contiguous() for name, tensor in resumed._tensors().items()})
    again.history = resumed.history
    for parameter in again.model.parameters():
        moments = again.optimizer.state[parameter]
        assert parameter.dim() < 4 or parameter.shape[1] == 1 or not parameter.is_contiguous()
        assert moments["exp_avg"].stride() == moments["exp_avg_sq"].stride() == parameter.stride()
    list(train(again, data_of(config)))
    assert all(torch.equal(a, b) for a, b in zip(whole.moving(), again.moving(), strict=True))


def test_the_learning_rate_may_be_a_number_or_a_tensor(tiny):
    state = TrainingState(tiny(), torch.device("cpu"))
    state.set_rate(0.5)
    assert state.optimizer.param_groups[0]["lr"] == 0.5
    held = state.optimizer.param_groups[0]["lr"] = torch.tensor(1.0)
    for rate in (0.25, torch.tensor(0.125, dtype=torch.float64)):
        state.set_rate(rate)
        assert state.optimizer.param_groups[0]["lr"] is held
        assert held.item() == float(rate)


def test_images_come_in_the_order_that_was_drawn(tiny, data_of, monkeypatch):
    config = tiny(augmentation="shift(pixels=2)")
    data, seen = data_of(config), []
    plain = Split.batch
    monkeypatch.setattr(Split, "batch", lambda self, index: seen.append(index.clone()) or plain(self, index))
    steps = step.Steps(TrainingState(config, torch.device("cpu")), data, Settled(compile=False, graph=False))
    draws = drawn(config, data)
    steps.begin(draws, [1e-3] * 4)
    for i in range(4):
        steps.take(i)
    assert torch.equal(torch.cat(seen), draws.order)


def test_the_spread_losss_margin_grows_with_each_step_of_the_run(tiny, data_of, tmp_path, monkeypatch):
    """0.2 before the first of 12 steps, and after a resumption as if there had been none."""
    config, cpu, seen = tiny(epochs=3, loss="spread(start=0.2, end=0.8)"), torch.device("cpu"), []
    plain = losses.spread
    monkeypatch.setattr(
        losses, "spread", lambda scores, labels, apart: seen.append(float(apart)) or plain(scores, labels, apart)
    )
    whole = result(config, data_of(config))
    assert seen == pytest.approx([0.2 + 0.05 * step for step in range(12)])
    state = TrainingState(config, cpu)
    next(train(state, data_of(config)))
    state.save(tmp_path / "state")
    seen.clear()
    resumed = result(config, data_of(config), TrainingState.load(tmp_path / "state", cpu))
    assert seen == pytest.approx([0.2 + 0.05 * step for step in range(4, 12)])
    assert torch.equal(resumed[0], whole[0])
    assert resumed[1] == whole[1]


def test_seeds_of_four_cells_in_turn_share_what_is_compiled(tiny, data_of, monkeypatch):
    """With more of them torch would stop compiling at some time, and say nothing."""
    told = []
    monkeypatch.setattr(torch.compiler, "reset", lambda: told.append("reset"))
    monkeypatch.setattr(torch, "compile", lambda function, **_: told.append("compile") or function)
    monkeypatch.setattr(step, "_kept", {})

    def trained(*cells):
        told.clear()
        for number, r in enumerate(cells):
            config = tiny(epochs=1, routing_iterations=r, seed=number)
            step.Steps(TrainingState(config, torch.device("cpu")), data_of(config), Settled(compile=True, graph=False))
        return told

    assert trained(1, 2, 3, 4) == ["reset", *["compile"] * 4]
    assert trained(1, 2, 3, 4, 4, 1) == []
    assert trained(5, 5, 1) == ["reset", "compile", "compile"]


IN_TURN = """
import sys
from functools import partial
from pathlib import Path

import torch

from capsnet.config import RunConfig
from capsnet.data import read
from capsnet.execution import Execution
from capsnet.state import TrainingState
from capsnet.step import CELLS
from capsnet.training import train

torch._dynamo.config.fail_on_recompile_limit_hit = True
traced, cpu = [], torch.device("cpu")
torch.compile = partial(torch.compile, backend=lambda graph, _: traced.append(1) or graph)
for seed in (0, 1):
    for cell in range(CELLS):
        own = RunConfig.model_validate_json(sys.argv[1])
        config = own.model_copy(update={"seed": seed, "routing_iterations": 1 + cell})
        list(train(TrainingState(config, cpu), read(config, Path("nowhere"), cpu), execution=Execution("on")))
        print(len(traced))
"""


def test_torch_compiles_the_steps_of_as_many_cells_as_are_kept(tiny):
    """Of both sizes of batch, and once for all seeds. In its own process, as the tests' checks of shapes can't be traced."""
    words = [sys.executable, "-c", IN_TURN, tiny(epochs=1, batch_size=32).model_dump_json()]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    first, *_, last, again, _, _, end = map(int, done.stdout.split())
    assert 0 < first < last == again == end


def test_where_a_capture_fails_steps_are_launched_one_by_one_and_it_is_said(tiny, data_of, captured, monkeypatch):
    """Be it that of the epoch's last batch alone; no step is lost, and none is done twice."""
    config, given_up, sizes = tiny(epochs=2, batch_size=32), [], []
    monkeypatch.setattr(training.Execution, "settle", lambda *_: Settled(compile=False, graph=False))
    wanted = result(config, data_of(config))

    def refusing(work, _pool, _stream):
        sizes.append(1)
        if len(sizes) == 2:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nCompile with ...")
        return work

    monkeypatch.setattr(graphs, "recorded", refusing)
    monkeypatch.setattr(step, "give_up", lambda *what: given_up.append(what))
    monkeypatch.setattr(training.Execution, "settle", lambda *_: Settled(compile=False, graph=True))
    with pytest.warns(
        UserWarning, match="not replayed, because .*: RuntimeError: CUDA error: operation not .* capturing$"
    ) as said:
        found = result(config, data_of(config))
    assert torch.equal(found[0], wanted[0])
    assert found[1] == wanted[1]
    assert (len(said), len(sizes), given_up) == (1, 2, [("graph", config)])


@pytest.mark.parametrize(
    ("said", "insists"), [("CUDA out of memory. Tried to allocate 2 MiB", ()), ("CUDA error: not permitted", ("graph",))]
)
def test_a_capture_that_is_insisted_on_or_finds_no_memory_fails(tiny, data_of, captured, monkeypatch, said, insists):
    def refusing(*_):
        raise RuntimeError(said)

    monkeypatch.setattr(graphs, "recorded", refusing)
    config = tiny(epochs=1)
    state = TrainingState(config, torch.device("cpu"))
    steps = step.Steps(state, data_of(config), Settled(compile=False, graph=True, insists=insists))
    before = [tensor.clone() for tensor in state.moving()]
    with pytest.raises(RuntimeError, match=said):
        steps.begin(drawn(config, steps.data), [1e-3] * 4)
    assert all(torch.equal(one, other) for one, other in zip(state.moving(), before, strict=True))


def test_a_run_that_ended_or_was_left_holds_no_graphs(tiny, data_of, captured, monkeypatch):
    """Their memory lies on the device; steps and graphs refer to each other, so that counting references frees neither."""
    made = []
    plain = step.Steps
    monkeypatch.setattr(training, "Steps", lambda *a: made.append(plain(*a)) or made[-1])
    config = tiny(epochs=2)
    list(train(TrainingState(config, torch.device("cpu")), data_of(config)))
    run = train(TrainingState(config, torch.device("cpu")), data_of(config))
    next(run)
    assert made[1].graphs
    run.close()
    assert [steps.graphs for steps in made] == [None, None]


class Fails(torch.autograd.Function):
    """A loss whose gradient can't be computed."""

    @staticmethod
    def forward(ctx, loss):
        return loss.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise RuntimeError("no C compiler\nwas found")


def broken_forward(*_):
    raise RuntimeError("no C compiler\nwas found")


def broken_backward(*given):
    loss, sums = step.drawn_losses(*given)
    return Fails.apply(loss), sums


@pytest.mark.parametrize("broken", [broken_forward, broken_backward])
def test_where_compiling_fails_steps_are_eager_and_it_is_said(tiny, data_of, monkeypatch, broken):
    """torch compiles the way back when it is first gone."""
    config, given_up = tiny(epochs=1), []
    monkeypatch.setattr(step, "_compiled", lambda _: broken)
    monkeypatch.setattr(step, "give_up", lambda *what: given_up.append(what))

    def trained(settled):
        state = TrainingState(config, torch.device("cpu"))
        steps = step.Steps(state, data_of(config), settled)
        steps.begin(drawn(config, steps.data), [1e-3] * 4)
        for i in range(4):
            steps.take(i)
        return [*state.moving(), steps.totals]

    wanted = trained(Settled(compile=False, graph=False))
    with pytest.warns(
        UserWarning, match="steps are eager, because .* fails on this machine: RuntimeError: no C compiler$"
    ) as said:
        found = trained(Settled(compile=True, graph=False))
    assert len(said) == 1
    assert given_up == [("compile", config)]
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))
    with pytest.raises(RuntimeError, match="no C compiler"):
        trained(Settled(compile=True, graph=False, insists=("compile",)))


def broken_for_the_rest(*given):
    """A compiler compiles anew for the epoch's last batch, which is smaller. What it has compiled rounds otherwise."""
    draws, places = given[3:5]
    if len(draws.order if places is None else places) < 32:
        broken_forward()
    loss, sums = step.drawn_losses(*given)
    return loss * 1.001, sums


@pytest.mark.parametrize("graph", [False, True])
def test_steps_are_eager_too_where_compiling_fails_for_the_last_batch_alone(tiny, data_of, monkeypatch, request, graph):
    """All steps are, as the run says: else one that is interrupted after an epoch would go on with other bits."""
    config, given_up = tiny(epochs=2), []
    wanted = result(config, data_of(config))
    monkeypatch.setattr(step, "_compiled", lambda _: broken_for_the_rest)
    monkeypatch.setattr(step, "give_up", lambda *what: given_up.append(what))
    warmed = request.getfixturevalue("captured")
    monkeypatch.setattr(training.Execution, "settle", lambda *_: Settled(compile=True, graph=graph))
    with pytest.warns(UserWarning, match="steps are eager, because .* fails on this machine: RuntimeError: no C compiler$"):
        found = result(config, data_of(config))
    assert torch.equal(found[0], wanted[0])
    assert found[1] == wanted[1]
    assert given_up == [("compile", config)]
    assert len(warmed) == (3 if graph else 0), "what is compiled is tried out, and each size is captured once"


@pytest.mark.parametrize("said", ["CUDA out of memory. Tried to allocate 2 MiB", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED"])
def test_a_step_that_fails_later_or_for_want_of_memory_fails(tiny, data_of, monkeypatch, said):
    config = tiny(epochs=1)
    monkeypatch.setattr(step, "_compiled", lambda _: step.drawn_losses)
    steps = step.Steps(TrainingState(config, torch.device("cpu")), data_of(config), Settled(compile=True, graph=False))

    def full(*_):
        raise RuntimeError(said)

    steps.losses = full
    with pytest.raises(RuntimeError, match=said):
        steps.begin(drawn(config, steps.data), [1e-3] * 4)
    steps.losses = step.drawn_losses
    steps.begin(drawn(config, steps.data), [1e-3] * 4)
    steps.take(0)
    steps.losses = broken_forward
    with pytest.raises(RuntimeError, match="no C compiler"):
        steps.take(1)
