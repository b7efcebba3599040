"""What the kernels are compared with does the same; here in Triton's interpreter, which needs no device."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from benchmarks import kernels
from benchmarks.clock import Spread
from capsnet.errors import InputError
from capsnet.execution import Execution, Settled
from tests.triton_kernels import INTERPRETED, interpret


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter")
def test_in_the_interpreter():
    interpret(__file__, 1)


@pytest.mark.skipif(not INTERPRETED, reason="test_in_the_interpreter runs it")
def test_both_sides_of_a_contest_do_the_same(small, cpu):
    """Adam's is the norm of the gradient."""
    primary = {"primary_types": 8, "primary_dim": 8, "primary_kernel": 3, "primary_stride": 2}
    config = small(**primary, conv_channels=64, conv_kernel=9, precision="bf16", batch_size=3, routing_iterations=2)
    pairs = kernels.contests(config, cpu)
    assert len(pairs) == 7
    for name, pair in pairs.items():
        mine, theirs = (tensors if isinstance(tensors, tuple) else (tensors,) for tensors in (pair.ours(), pair.theirs()))
        for a, b in zip(mine, theirs, strict=True):
            assert (a - b).norm() < 5e-2 * b.norm(), name  # the interpreter cuts bfloat16 off


def test_without_a_cuda_device_it_is_refused(monkeypatch):
    monkeypatch.setattr("sys.argv", ["kernels", "--device", "cpu"])
    with pytest.raises(
        InputError, match="the kernels are for CUDA devices, and this is a CPU; python -m benchmarks measures it"
    ):
        kernels.main()


def test_the_table_of_a_step_says_how_it_was_taken_even_where_compiling_failed(small, cpu, monkeypatch):
    def fails(*_):
        raise RuntimeError("no C compiler")

    given_up = set()
    monkeypatch.setattr("capsnet.execution._failed", {"compile": given_up, "graph": set()})
    monkeypatch.setattr("capsnet.step._compiled", lambda _: fails)
    monkeypatch.setattr(Execution, "settle", lambda self, *_: Settled(self.compile == "auto" and not given_up, graph=False))
    monkeypatch.setattr(kernels, "STEPS", 2)
    monkeypatch.setattr("torch.profiler.profile", lambda **_: nullcontext(SimpleNamespace(key_averages=list)))
    with pytest.warns(UserWarning, match="steps are eager"):
        assert kernels.profiled(small(), cpu, compiled=True).title.startswith("Kernels of a step, fp32, eager; ")


def test_the_table_says_what_is_faster_by_how_much():
    found = {"routing": (Spread((1e-4, 2e-4, 1e-4)), Spread((3e-4, 4e-4, 2e-4)), "votes")}
    assert kernels.compared(found, 128).rows == (("routing", "100 (100–200)", "300 (200–400)", "2.00 (2.00–3.00)", "votes"),)
