"""Options of how steps are computed: what auto means, what is refused, and that numbers stay."""

import json
import os
import subprocess
import sys

import pytest
import torch

from capsnet.errors import InputError
from capsnet.execution import AUTO, Execution, Settled, give_up

CUDA = torch.device("cuda")


def test_a_cpu_takes_eager_steps_unless_told_otherwise(tiny, cpu):
    assert AUTO.settle(tiny(epochs=10_000), cpu) == Settled(compile=False, graph=False)
    assert Execution(compile="on").settle(tiny(), cpu) == Settled(compile=True, graph=False, insists=("compile",))


@pytest.mark.parametrize(("epochs", "wanted"), [(1, (False, False)), (60, (False, True)), (5_000, (True, True))])
def test_on_cuda_auto_is_on_where_it_pays_back(tiny, epochs, wanted):
    config = tiny(epochs=epochs)  # 4 steps each
    assert AUTO.settle(config, CUDA) == Settled(*wanted)
    assert Execution("off", "off").settle(config, CUDA) == Settled(compile=False, graph=False)
    assert Execution("on", "on").settle(config, CUDA) == Settled(compile=True, graph=True, insists=("compile", "graph"))


@pytest.mark.parametrize(("what", "left"), [("compile", (False, True)), ("graph", (True, False))])
def test_what_failed_is_not_done_again(tiny, monkeypatch, what, left):
    monkeypatch.setattr("capsnet.execution._failed", {"compile": set(), "graph": set()})
    config = tiny(epochs=5_000)
    give_up(what, config.model_copy(update={"seed": 3}))
    assert AUTO.settle(config, CUDA) == Settled(*left)
    insisting = Execution("on", "on").settle(config, CUDA)
    assert insisting == Settled(True, True, ("compile", "graph"))
    assert AUTO.settle(tiny(epochs=5_000, routing_iterations=1), CUDA) == Settled(True, True)


def test_a_graph_is_refused_on_a_cpu(tiny, cpu):
    with pytest.raises(InputError, match="graph on captures CUDA graphs, and this is a CPU; choices here: auto, off"):
        Execution(graph="on").settle(tiny(), cpu)


@pytest.mark.parametrize("name", ["compile", "graph"])
def test_other_words_are_refused(name):
    with pytest.raises(InputError, match=f"unknown {name} 'yes'; choices: auto, on, off"):
        Execution(**{name: "yes"})


def test_it_says_what_it_does():
    assert str(Settled(False, False)) == "eager"
    assert str(Settled(True, False)) == "compiled"
    assert str(Settled(True, True)) == "compiled and replayed from a CUDA graph"


COMPILED = """
import json, sys, torch
from capsnet.config import make_config
from capsnet.data import read
from capsnet.execution import Execution
from capsnet.state import TrainingState
from capsnet.training import train
from pathlib import Path

torch.set_num_threads(1)
config, cpu = make_config(json.loads(sys.argv[1]), "the test"), torch.device("cpu")
for option in ("off", "on", "on"):
    history = train(TrainingState(config, cpu), read(config, Path("/nowhere"), cpu), execution=Execution(compile=option))
    print(json.dumps([metrics.train_loss for metrics in history]))
"""


@pytest.mark.slow
def test_compiled_steps_train_as_eager_ones(tiny):
    """Rounding differs, and the same compiled steps give the same bits twice. In a process whose types are not checked."""
    config = tiny(epochs=3, learning_rate=5e-3).model_dump_json()
    done = subprocess.run([sys.executable, "-c", COMPILED, config], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    eager, compiled, again = map(json.loads, done.stdout.splitlines())
    assert compiled == pytest.approx(eager, rel=1e-4)
    assert compiled == again


TRACED = """
import json, sys, torch
from capsnet.config import make_config
from capsnet.models import build
from capsnet.step import step_losses

torch.set_num_threads(1)
compiled = torch.compile(step_losses, backend="eager", dynamic=False)  # what is traced, run as it is: without a C++ compiler
random = torch.Generator().manual_seed(1)
images, labels = torch.rand(16, 1, 16, 16, generator=random), torch.randint(0, 10, (16,), generator=random)
found = []
for precision in ("fp32", "bf16"):
    config = make_config({**json.loads(sys.argv[1]), "precision": precision}, "the test")
    model = build(config, torch.Generator().manual_seed(2))
    for model.spectral in (False, True):
        for compute in (step_losses, compiled):
            model.zero_grad()
            loss, _ = compute(model, config.reconstruction_weight, images, labels)
            loss.backward()
            gradients = torch.cat([p.grad.flatten() for p in model.parameters()])
            found.append([loss.item(), gradients.double().norm().item(), gradients.numpy().tobytes().hex()])
print(json.dumps(found))
"""


def test_a_compiled_step_rounds_routes_and_transforms_as_an_eager_one(tiny):
    """In float32 and in bf16, each with plain convolutions and with spectra: the same bits, and others in each of the four.

    Dynamo of PyTorch 2.11 takes ``torch.compiler.is_exporting()`` for true, and programs of torch.export do none of this.
    """
    config = tiny(reconstruction_weight=1e-2).model_dump_json()
    done = subprocess.run([sys.executable, "-c", TRACED, config], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    eager, compiled = found[::2], found[1::2]
    assert compiled == eager
    assert len({gradients for *_, gradients in compiled}) == 4
    for exact, rounded in zip(compiled[:2], compiled[2:], strict=True):
        assert rounded[1] != pytest.approx(exact[1], rel=1e-5), "nothing was rounded"


KEPT = """
import ctypes, resource, torch
from capsnet.execution import keep_freed_memory
{first}
before = None
for _ in range(20):
    torch.ones(40_000_000)  # 160 MB
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    print(faults - (before or faults))
    before = faults
"""


REFUSING = """
class Library:  # as of glibc 2.34 and before, which know no threshold of M_MMAP_THRESHOLD above 32 MB
    def mallopt(self, option, value, own=ctypes.CDLL(None).mallopt):
        return 0 if option == -3 and value > 2**25 else own(option, value)
ctypes.CDLL = lambda name: Library()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of the C library of Linux")
@pytest.mark.parametrize("library", ["", REFUSING], ids=["this glibc", "an older one"])
def test_memory_that_was_freed_is_not_asked_for_again(library):
    """Each of its 39,000 pages would be cleared anew."""
    faults = {}
    for first in ("", f"{library}\nkeep_freed_memory()"):
        done = subprocess.run([sys.executable, "-c", KEPT.format(first=first)], capture_output=True, text=True, check=True)
        faults[bool(first)] = int(done.stdout.split()[-1])
    assert faults[True] < 1_000 < faults[False]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="PyTorch has GNU's OpenMP on Linux")
@pytest.mark.parametrize(
    ("given", "policy", "spins"),
    [({}, "PASSIVE", 1000), ({"GOMP_SPINCOUNT": "7"}, "PASSIVE", 7), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE", 30_000_000_000)],
)
def test_waiting_threads_spin_for_a_moment_unless_told_otherwise(given, policy, spins):
    """As the OpenMP that runs them has read it."""
    environment = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    environment |= {"OMP_DISPLAY_ENV": "VERBOSE", **given}
    command = [sys.executable, "-c", "import capsnet.layers"]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stderr
    assert f"OMP_WAIT_POLICY = '{policy}'" in said
    assert f"GOMP_SPINCOUNT = '{spins}'" in said
