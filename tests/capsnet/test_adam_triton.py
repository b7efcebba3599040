"""Adam's kernel against PyTorch's Adam in float64: in Triton's interpreter, and on a device."""

import pytest
import torch

from capsnet import adam_triton
from capsnet.adam_triton import deviations, self_check, trusted, update
from capsnet.config import RunConfig
from capsnet.kernels import OPTIONS
from capsnet.models import build
from capsnet.state import TrainingState, moments
from capsnet.step import updated
from tests.triton_kernels import GPU, INTERPRETED, captured, compiled, interpret, microseconds, operations

pytest.importorskip("triton", reason="Triton is not installed")


@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter")
def test_in_the_interpreter():
    interpret(__file__, 5)


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("shapes", [[(1,)], [(7, 3)], [(3, 1024)], [(2, 1025), (1,), (16,), (1024,), (5, 5)]], ids=str)
def test_it_is_adam(device, shapes, decay):
    found = deviations(device, shapes, 4, decay)
    assert len(found) == 1 + 3 * len(shapes)
    assert all(error < 1e-5 for error in found.values()), found
    assert all(error < 1e-6 for name, error in found.items() if "second" in name), found


def with_gradients(config, device):
    state, generator = TrainingState(config, device), torch.Generator().manual_seed(0)
    for parameter in state.model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator).to(device)
    return state


def test_a_networks_weights_moments_and_norm_are_those_of_pytorchs(device, tiny):
    """The first gradient lies in another order than its weight."""
    config = tiny(weight_decay=0.01, adam_epsilon=1e-3)
    mine, theirs = with_gradients(config, device), with_gradients(config, device)
    first = next(mine.model.parameters())
    first.grad = first.grad.to(memory_format=torch.channels_last)
    for state in (mine, theirs):
        for group in state.optimizer.param_groups:
            group["lr"] = torch.tensor(0.01, device=device)  # as a graph reads it
            group["fused"] = group["fused"] and device.type == "cuda"
            group["capturable"] = device.type == "cuda"
    torch.testing.assert_close(update(mine.optimizer), updated(theirs), rtol=1e-6, atol=0)
    for found, wanted in zip(mine.moving(), theirs.moving(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-7)
    assert {float(values["step"]) for values in mine.optimizer.state.values()} == {1.0}


def test_a_gradient_that_lies_as_its_weight_is_not_copied(device):
    """Of a single channel the stride says nothing, and gradients have another one than weights whose channels are last."""
    weight = torch.ones(4, 1, 3, 3, device=device).to(memory_format=torch.channels_last).requires_grad_()
    weight.grad = torch.ones(4, 1, 3, 3, device=device)
    assert weight.grad.stride() != weight.stride()
    optimizer = torch.optim.Adam([weight], lr=torch.tensor(0.5, device=device), capturable=device.type == "cuda")
    optimizer.state[weight] = moments(weight)
    with operations() as made:
        update(optimizer)
    assert "aten::empty_like" not in made, "a copy for each step"


def test_a_parameter_without_a_gradient_stays(device):
    weights = [torch.ones(3, device=device).requires_grad_() for _ in range(2)]
    weights[1].grad = torch.ones_like(weights[1])
    optimizer = torch.optim.Adam(weights, lr=torch.tensor(0.5, device=device), capturable=device.type == "cuda")
    optimizer.state.update({weight: moments(weight) for weight in weights})
    assert update(optimizer) == pytest.approx(3**0.5)
    assert weights[0].tolist() == [1, 1, 1]
    torch.testing.assert_close(weights[1].detach(), torch.full_like(weights[1], 0.5))  # whatever the gradient, the rate


def test_the_check_of_a_device(device, monkeypatch):
    def ours():
        return [torch.ones(shape, device=device) for shape in ((5, 5), (16,))]

    adam_triton._checked.cache_clear()
    with monkeypatch.context() as patch:
        checked = []
        patch.setattr(adam_triton, "deviations", lambda *given: checked.append(given[1]) or deviations(*given))
        assert trusted(device, ours())
        assert trusted(device, ours())
    assert checked == [[(3, 1000), (3, 1024)]]
    adam_triton._checked.cache_clear()
    monkeypatch.setattr(adam_triton, "deviations", lambda *_: {"norm": 1.0})
    assert self_check(device, (True,)) == "norm deviates by 1.0e+00"
    with pytest.warns(UserWarning, match="the kernels of Adam are not used on .*norm deviates"):
        assert not trusted(device, ours())
    adam_triton._checked.cache_clear()


@pytest.mark.skipif(INTERPRETED, reason="nothing is compiled there")
def test_a_compiler_takes_the_kernel(tmp_path, monkeypatch):
    from capsnet import adam_kernels as kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    count = len(list(build(RunConfig(), torch.Generator()).parameters()))
    types = dict.fromkeys(("parameters", "gradients", "firsts", "seconds", "steps"), ("*fp32",) * count)
    types |= {"counts": ("i32",) * count, "rate": "*fp32", "squares": "*fp32", "epsilon": "fp32", "decay": "fp32"}
    betas = {"log_1": -0.105, "log_2": -0.001, "beta_1": 0.9, "beta_2": 0.999, "block": adam_triton.BLOCK}
    found = compiled(kernels.update, types, betas, {"num_warps": 4, **OPTIONS}, unaligned=("epsilon", "decay"))
    assert found.stack == 0
    assert found.ptx.count("ld.global.v4") == 4 * 2 * count, "a thread takes 8 numbers of each tensor, 16 bytes at a time"


class TestDevice:
    pytestmark = GPU

    def test_a_graph_replays_it(self, tiny):
        mine, theirs = (with_gradients(tiny(), torch.device("cuda")) for _ in range(2))
        graph, norm = captured(lambda: update(mine.optimizer))
        graph.replay()
        for _ in range(4):  # the warm-up's, too
            wanted = updated(theirs)
        torch.testing.assert_close(norm, wanted, rtol=1e-6, atol=0)
        for found, other in zip(mine.moving(), theirs.moving(), strict=True):
            torch.testing.assert_close(found, other, rtol=1e-5, atol=1e-6)

    def test_it_is_faster_than_pytorchs(self):
        state = with_gradients(RunConfig(precision="bf16"), torch.device("cuda"))
        for parameter in state.model.parameters():
            parameter.grad = torch.empty_like(parameter).copy_(parameter.grad)
        times = {
            way: microseconds(work)
            for way, work in (("kernel", lambda: update(state.optimizer)), ("torch", lambda: updated(state)))
        }
        print(times)
        assert times["kernel"] < times["torch"]
