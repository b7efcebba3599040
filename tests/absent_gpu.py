"""What a compiler makes of a training step on a GPU, found out on a machine that has none.

Tensors are fake: they have a shape, strides and a device, and no numbers. So all of it happens but the computing: PyTorch
traces the step and its way back as it does on a GPU, with the kernels that are taken there, generates its own, and Triton
compiles these for sm_90; then what was generated is run on fake tensors, for its assertions about strides. It takes two
libraries that answer as CUDA's runtime and driver would, which a C compiler makes here of the names that PyTorch looks up.

``python -m tests.absent_gpu`` does it in a process of its own, for configs that it reads from its standard input.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch

# of an H200, those that PyTorch asks for
PROPERTIES = SimpleNamespace(
    name="NVIDIA H200",
    major=9,
    minor=0,
    total_memory=150 * 10**9,
    multi_processor_count=132,
    regs_per_multiprocessor=65536,
    max_threads_per_multi_processor=2048,
    max_threads_per_block=1024,
    warp_size=32,
    shared_memory_per_block=49152,
    shared_memory_per_block_optin=232448,
    shared_memory_per_multiprocessor=233472,
    L2_cache_size=52428800,
    gcnArchName="",
)
RUNTIME = """
static int current;
int cudaGetDevice(int *d) { *d = current; return 0; }
int cudaSetDevice(int d) { current = d; return 0; }
int cudaGetDeviceCount(int *n) { *n = 1; return 0; }
int cudaDeviceGetStreamPriorityRange(int *least, int *most) { *least = 0; *most = -5; return 0; }
int cudaStreamIsCapturing(void *s, int *is) { *is = 0; return 0; }
int cudaGetLastError(void) { return 0; }
int cudaPeekAtLastError(void) { return 0; }
"""
DRIVER = """
int cuDevicePrimaryCtxGetState(int d, unsigned *flags, int *active) { *flags = 0; *active = 1; return 0; }
int cuDriverGetVersion(int *v) { *v = 13000; return 0; }
int cuGetErrorString(int e, const char **s) { *s = ""; return 0; }
"""
IMAGES = 1000


@dataclass
class Made:
    """Of a step with its way back.

    Attributes:
        operators: how often each stands in the graphs that PyTorch traced.
        kernels: how often each that PyTorch generated is launched.
        compiled: and how many programs Triton made of them, each for the ways of cutting that are to be tried out.
        odd: parameters whose gradients lie in another order than they.
    """

    operators: dict[str, int] = field(default_factory=dict)
    kernels: dict[str, int] = field(default_factory=dict)
    compiled: int = 0
    odd: list[str] = field(default_factory=list)


def made_of(configs: Sequence[Mapping[str, Any]], folder: Path, *, generate: bool = False) -> list[Made]:
    """What becomes of the steps of these configs; each has to be one graph, or else the test fails.

    Args:
        configs: fields that aren't default.
        folder: for libraries and caches.
        generate: kernels, and not the graphs alone.
    """
    if torch.cuda.is_available() or not torch.version.cuda:
        pytest.skip("there is a GPU, which does it for real, or PyTorch knows none")
    compiler = shutil.which("cc") or pytest.skip("there is no C compiler")
    runtime, driver = folder / "runtime.so", folder / "libcuda.so.1"
    for library, text in ((runtime, RUNTIME), (driver, DRIVER + _answers(DRIVER))):
        source = library.with_suffix(".c")
        source.write_text(text)
        subprocess.run([compiler, "-w", "-shared", "-fPIC", f"-Wl,-soname,{library.name}", "-o", library, source], check=True)
    environment = {
        **os.environ,
        "LD_PRELOAD": str(runtime),
        "LD_LIBRARY_PATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]),
        "TRITON_CACHE_DIR": str(folder / "triton"),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
    }
    command = [sys.executable, "-m", "tests.absent_gpu", *["generate"] * generate]
    done = subprocess.run(
        command,
        input=json.dumps(list(configs)),
        env=environment,
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    return [Made(**found) for found in json.loads(done.stdout.splitlines()[-1])]


def _answers(known: str) -> str:
    """A function that does nothing, and well, for each of the driver's that PyTorch or Triton looks up."""
    import triton.backends.nvidia

    read = [
        *(Path(torch.__file__).parent / "lib").glob("libc10_cuda.so"),
        Path(triton.backends.nvidia.__file__).parent / "driver.c",
    ]
    names = {name for path in read for name in re.findall(rb"\b(cu[A-Z]\w+)(?:\0|\()", path.read_bytes())}
    return "\n".join(f"int {name.decode()}(void) {{ return 0; }}" for name in sorted(names) if name.decode() not in known)


@contextmanager
def _device() -> Iterator[None]:
    """PyTorch takes it that there is a GPU."""
    torch.backends.cudnn.enabled = False  # asks the card itself
    answers: dict[str, Any] = {
        "torch.cuda.is_available": lambda: True,
        "torch.cuda.device_count": lambda: 1,
        "torch.cuda.current_device": lambda: 0,
        "torch.cuda.get_rng_state": lambda *_: torch.zeros(16, dtype=torch.uint8),
        "torch.cuda.set_rng_state": lambda *_: None,
        "torch.cuda.is_current_stream_capturing": lambda: False,
        "torch.cuda._lazy_init": lambda: None,
        # whether kernels are right, is for the interpreter and a GPU to say
        "capsnet.agreement_triton._checked": lambda *_: True,
        "capsnet.convolution_triton._checked": lambda *_: True,
    }
    if hasattr(torch._subclasses.fake_tensor, "init_gpu_context"):  # PyTorch 2.11
        answers["torch._subclasses.fake_tensor.init_gpu_context"] = lambda _: None
    with ExitStack() as patches:
        for name, answer in answers.items():
            patches.enter_context(mock.patch(name, answer))
        # which builds of PyTorch without a device lack
        patches.enter_context(mock.patch("torch.cuda._get_device_properties", return_value=PROPERTIES, create=True))
        yield


@contextmanager
def _generating(made: Made, sources: dict[str, str]) -> Iterator[None]:
    """PyTorch generates kernels, which are counted where they would be launched."""
    import torch._inductor.config as settings
    from torch._inductor.async_compile import AsyncCompile

    launched = Counter[str]()

    def kernel(_: Any, name: str, source: str, *__: Any, **___: Any) -> SimpleNamespace:
        sources[name] = source
        return SimpleNamespace(run=lambda *_, **__: launched.update([name]))

    def empty(size: Any, stride: Any, dtype: torch.dtype) -> torch.Tensor:
        return torch.empty_strided(size, stride, dtype=dtype, device="cuda:0")

    def reinterpreted(tensor: torch.Tensor, size: Any, stride: Any, offset: int = 0) -> torch.Tensor:
        return torch.as_strided(tensor, size, stride, tensor.storage_offset() + offset)

    guards = "torch._C._dynamo.guards"
    with (
        mock.patch.object(AsyncCompile, "triton", kernel),
        mock.patch.object(AsyncCompile, "wait"),
        mock.patch(f"{guards}._empty_strided_cuda", empty),
        mock.patch(f"{guards}._reinterpret_tensor", reinterpreted),
        mock.patch("torch._C._cuda_getCurrentRawStream", return_value=0),
        mock.patch("torch._inductor.fx_passes.joint_graph.lazy_init"),  # makes tensors that aren't fake
        settings.patch(compile_threads=1, fx_graph_cache=False, joint_graph_constant_folding=False),
    ):
        yield
    made.kernels = dict(launched)


def _step(fields: Mapping[str, Any], backend: Any) -> list[str]:
    """Trace a config's step and its way back; the parameters whose gradients lie otherwise than they."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    from capsnet.adam_triton import _alike
    from capsnet.config import make_config
    from capsnet.data import Split
    from capsnet.draws import Draws, draw
    from capsnet.models import make
    from capsnet.state import STREAMS
    from capsnet.step import drawn_losses
    from capsnet.training import computing

    config, device = make_config(fields, "a test"), torch.device("cuda", 0)
    training = Split(torch.zeros(IMAGES, *config.shape, dtype=torch.uint8), torch.arange(IMAGES) % config.facts.classes)
    any_seed = {name: torch.Generator() for name in STREAMS}
    draws = draw(training, config.facts.labels, config.augment, config.dropout > 0, any_seed)

    def there(tensor: torch.Tensor) -> torch.Tensor:
        return torch.empty(tensor.shape, dtype=tensor.dtype, device=device)

    with _device(), FakeTensorMode(allow_non_fake_inputs=True), computing(config.precision, device):
        model = make(config)
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                # as TrainingState has them
                last = parameter.dim() == 4 and config.precision != "fp32"
                moved = there(parameter).to(memory_format=torch.channels_last if last else torch.contiguous_format)
                setattr(module, name, torch.nn.Parameter(moved))
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, there(buffer))
        compiled = torch.compile(drawn_losses, dynamic=False, fullgraph=True, backend=backend)
        epoch = Draws(*[there(tensor) for tensor in vars(draws).values()])
        data = Split(there(training.images), there(training.labels))
        # as a captured step has them
        places = there(torch.arange(config.batch_size))
        taken = there(torch.zeros((), dtype=torch.float64))
        given = config.reconstruction_weight, data, epoch, places, config.augment, config.objective, taken, config.total_steps
        loss, _ = compiled(model, *given)
        odd: list[str] = []
        for name, parameter in model.named_parameters():
            # before PyTorch copies it into the parameter's order

            def seen(gradient: torch.Tensor, name: str = name, parameter: torch.Tensor = parameter) -> None:
                odd.extend([name] * (not _alike(gradient, parameter)))

            parameter.register_hook(seen)
        loss.backward()
        return odd


def _traced(fields: Mapping[str, Any]) -> Made:
    from functorch.compile import make_boxed_func
    from torch._dynamo.backends.common import aot_autograd

    operators = Counter[str]()

    def counted(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        operators.update(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        boxed: Callable[..., Any] = make_boxed_func(graph.forward)
        return boxed

    odd = _step(fields, aot_autograd(fw_compiler=counted, bw_compiler=counted))
    return Made(operators=dict(operators), odd=odd)


def _generated(fields: Mapping[str, Any]) -> Made:
    from torch._inductor.codecache import PyCodeCache

    made, sources = Made(), dict[str, str]()
    with _generating(made, sources):
        made.odd = _step(fields, "inductor")
    with _device():
        for name, source in sources.items():
            kernel = getattr(PyCodeCache.load(source), name)
            for way in kernel.configs:
                kernel._precompile_config(way)
                made.compiled += 1
    return made


if __name__ == "__main__":
    found = []
    for wanted in json.load(sys.stdin):
        torch.compiler.reset()
        found.append(vars(_generated(wanted) if "generate" in sys.argv else _traced(wanted)))
    print(json.dumps(found))
