"""The kernels of the convolutions against float64: in Triton's interpreter, in the compiler without a device, on a device.

The interpreter rounds to bfloat16 by cutting off, which is up to twice as far off.
"""

import inspect

import pytest
import torch

from capsnet import convolution_triton
from capsnet.config import RunConfig
from capsnet.convolution_sizes import Sizes, order_of_places
from capsnet.convolution_triton import (
    deviations,
    padded_rows,
    primary_maps,
    self_check,
    trusted,
    two_convolutions,
    two_convolutions_gradients,
)
from capsnet.kernels import OPTIONS
from capsnet.models import build
from tests.triton_kernels import GPU, INTERPRETED, captured, compiled, interpret, microseconds, zeros_made

pytest.importorskip("triton", reason="Triton is not installed")
FLOAT32 = 1e-6  # of what is summed in float32 from numbers that are bfloat16 already
PAPER = Sizes((1, 28, 28), 256, 9, 256, 9, 2)
SMALL = Sizes((1, 8, 8), 64, 3, 64, 3, 2)


def layers(device, sizes=SMALL):
    torch.manual_seed(0)
    first = torch.nn.Conv2d(sizes.shape[0], sizes.features, sizes.first)
    second = torch.nn.Conv2d(sizes.features, sizes.maps, sizes.second, sizes.stride)
    images = torch.rand(3, *sizes.shape)
    return images.to(device), first.to(device), second.to(device)


def answers(images, first, second):
    maps = primary_maps(images, first, second)
    return [maps, *torch.autograd.grad(maps.square().sum(), [*first.parameters(), *second.parameters()])]


@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter")
def test_in_the_interpreter():
    interpret(__file__, 10)


@pytest.mark.parametrize(
    ("sizes", "batch"),
    [
        (SMALL, 2),
        (Sizes((1, 12, 10), 64, 3, 64, 4, 2), 1),  # not square
        (Sizes((2, 11, 11), 64, 3, 128, 4, 3), 3),  # several channels; rows that no position sees; other widths of tiles
        (Sizes((3, 7, 7), 64, 7, 64, 1, 1), 70),  # patches of more than a tile; more images than a block
        (Sizes((1, 4, 4), 64, 3, 64, 2, 1), 130),  # more images than a tile
        (Sizes((1, 9, 9), 64, 5, 64, 2, 4), 2),  # places between the positions
    ],
    ids=str,
)
def test_they_are_convolutions_of_rounded_numbers(device, sizes, batch):
    found = deviations(device, batch, sizes)
    assert len(found) == 5
    bounds = dict.fromkeys(found, 4e-3) | {"second bias": FLOAT32}
    assert all(error < bounds[name] for name, error in found.items()), found
    assert found["maps"] > 1e-4, "features are not rounded"


def test_two_runs_agree_to_the_bit(device):
    for first, second in zip(answers(*layers(device)), answers(*layers(device)), strict=True):
        assert torch.equal(first, second)


def test_an_images_maps_are_the_same_in_any_batch(device):
    images, first, second = layers(device)
    with torch.no_grad():
        whole = primary_maps(images.repeat(5, 1, 1, 1), first, second)
        assert torch.equal(whole[:3], primary_maps(images, first, second))
        assert torch.equal(whole[14:], primary_maps(images[2:], first, second))


def test_without_gradients_it_keeps_nothing(device):
    images, first, second = layers(device)
    kept = primary_maps(images, first, second)
    with torch.no_grad():
        assert torch.equal(primary_maps(images, first, second), kept)
        weights = first.weight, first.bias, second.weight, padded_rows(first.weight)
        assert all(rest.numel() == 0 for rest in two_convolutions(images, *weights, 2, False)[1:])


def test_weights_that_are_not_numbers_any_more_make_maps_that_are_none(device):
    """The larger of 0 and NaN may be either, by instruction: with 0, a run that has diverged would go on."""
    images, first, second = layers(device)
    first.weight.data[0] = float("nan")
    assert primary_maps(images, first, second).isnan().all()


def test_the_way_back_makes_no_zeros_for_what_only_it_reads(device):
    """As large as patches, features and weight, they would take as long to write as the features."""
    maps = primary_maps(*layers(device))
    assert zeros_made(maps.sum().backward) == []


def test_the_gradient_is_rounded_and_laid_out_before_the_kernels(device, monkeypatch):
    """Where a compiler sees it, which does both in the kernel that makes the gradient."""
    seen, plain = [], two_convolutions_gradients
    monkeypatch.setattr(convolution_triton, "two_convolutions_gradients", lambda *given: seen.append(given[0]) or plain(*given))
    maps = primary_maps(*layers(device))
    maps.backward(torch.randn(maps.transpose(1, 3).shape, device=device).transpose(1, 3))
    assert seen[0].dtype == torch.bfloat16
    assert seen[0].is_contiguous()


def test_weights_may_lie_in_any_order(device):
    images, first, second = layers(device)
    wanted = answers(images, first, second)
    turned = answers(images, first.to(memory_format=torch.channels_last), second.to(memory_format=torch.channels_last))
    assert all(torch.equal(a, b) for a, b in zip(wanted, turned, strict=True))
    assert turned[3].stride() == second.weight.stride(), "a copy for each step"


def test_it_is_one_operation_to_the_compiler(device, monkeypatch):
    """Without the wrappers that check shapes in tests, which can't be traced."""
    for name in ("padded_rows", "padded"):
        monkeypatch.setattr(convolution_triton, name, inspect.unwrap(getattr(convolution_triton, name)))
    images, first, second = layers(device)
    plain = inspect.unwrap(primary_maps)
    compiled = torch.compile(lambda x: plain(x, first, second), fullgraph=True, backend="aot_eager")
    maps = compiled(images)
    gradients = torch.autograd.grad(maps.square().sum(), [*first.parameters(), *second.parameters()])
    for mine, theirs in zip((maps, *gradients), answers(images, first, second), strict=True):
        assert torch.equal(mine, theirs)
    weights = first.weight, first.bias, second.weight, padded_rows(first.weight.detach())
    utilities = "test_schema", "test_faketensor"
    for keep in (True, False):
        torch.library.opcheck(two_convolutions, (images, *weights, 2, keep), test_utils=utilities)
    product, *kept = two_convolutions(images, *weights, 2, True)
    sizes = *images.shape[2:], second.kernel_size[0], 2
    torch.library.opcheck(two_convolutions_gradients, (product, first.weight, *kept, *sizes), test_utils=utilities)
    wanted = [p.shape for p in (first.weight, first.bias, second.weight)], [p.stride() for p in first.parameters()]
    made = two_convolutions_gradients(product, first.weight, *kept, *sizes)
    assert ([g.shape for g in made], [g.stride() for g in made[:2]]) == wanted


def test_the_network_takes_them_in_bfloat16_alone(device, tiny, monkeypatch):
    monkeypatch.setattr(convolution_triton, "CHECKED", 2)
    changes = {"conv_channels": 64, "primary_types": 8, "primary_dim": 8}
    networks = {p: build(tiny(**changes, precision=p), torch.Generator().manual_seed(0)).to(device) for p in ("bf16", "fp32")}
    images = torch.rand(2, 1, 16, 16, device=device)
    assert networks["bf16"].takes_kernels(images)
    assert not networks["bf16"].takes_kernels(images.clone().requires_grad_())
    assert not networks["fp32"].takes_kernels(images)
    assert not build(tiny(precision="bf16"), torch.Generator().manual_seed(0)).to(device).takes_kernels(images)
    with torch.no_grad():
        maps = {precision: network.maps(images) for precision, network in networks.items()}
    assert maps["bf16"].dtype == torch.float32
    off = (maps["bf16"] - maps["fp32"]).norm() / maps["fp32"].norm()
    assert 1e-4 < off < 2e-2


def test_the_check_of_a_device(device, monkeypatch):
    monkeypatch.setattr(convolution_triton, "CHECKED", 2)
    assert self_check(device, SMALL) == ""
    with torch.inference_mode():  # as in an evaluation, which may be the first to ask
        assert self_check(device, Sizes((1, 6, 6), 64, 3, 64, 3, 2)) == ""
    for error, reason in ((2e-2, "maps deviates by 2.0e-02"), (float("nan"), "deviates by nan")):
        monkeypatch.setattr(convolution_triton, "deviations", lambda *_, error=error: {"maps": error})
        assert reason in self_check(device, SMALL)
    monkeypatch.setattr(convolution_triton, "deviations", lambda *_: 1 / 0)
    assert self_check(device, SMALL) == "ZeroDivisionError: division by zero"
    with pytest.warns(UserWarning, match="kernels of the convolutions are not used on .*ZeroDivisionError"):
        assert not trusted(device, *Sizes((1, 9, 9), 64, 3, 64, 2, 2).numbers)


def test_what_they_support():
    assert PAPER.supported(128)
    assert PAPER.supported(1000)
    assert not PAPER.supported(2**31 // (400 * 256) + 1), "offsets have 31 bits"
    assert not Sizes((1, 28, 28), 100, 9, 256, 9, 2).supported(1)
    assert not Sizes((1, 28, 28), 256, 9, 96, 9, 2).supported(1)
    assert not Sizes((1, 16, 16), 8, 9, 32, 8, 2).supported(1), "not even a tile of maps"


def test_sums_are_split_so_that_the_last_round_of_tiles_is_nearly_full():
    assert PAPER.splits == 7  # 504 tiles of 528 places


def test_the_places_with_most_to_add_up_come_first():
    order = order_of_places(PAPER, torch.device("cpu")).tolist()
    assert sorted(order) == list(range(400))
    seen = [sum(0 <= side - 2 * i < 9 for i in range(6)) for side in range(20)]
    terms = [seen[place // 20] * seen[place % 20] for place in order]
    assert terms == sorted(terms, reverse=True)
    assert (terms[0], terms[-1], sum(terms)) == (25, 0, 36 * 81)  # the last row and column are seen from nowhere


@pytest.mark.skipif(INTERPRETED, reason="nothing is compiled there")
def test_a_compiler_takes_the_kernels(tmp_path, monkeypatch):
    """For sm_90 and the paper's sizes, without a device: the tensor cores' own instructions, and no registers spilled."""
    from capsnet import convolution_gradient_kernels as gradients
    from capsnet import convolution_kernels as kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    common = {"tile": 128, "columns": 128, "step": 64, "interpreted": False}
    patches = {"channels": 1, "kernel": 9, "padded": 128, "tile": 64, "columns": 64}
    first = common | {"features": 256, "padded": 128}
    second = common | {"channels": 256, "maps": 256, "kernel": 9, "stride": 2}
    tall, wide = "tensordesc<bf16[128,64]>", "tensordesc<bf16[64,128]>"
    cases = [
        (kernels.patches_of, {"images": "*fp32", "out": "*bf16"}, patches),
        (kernels.first_maps, {"patches": tall, "weight": tall, "bias": "*fp32", "out": "*bf16"}, first),
        (
            gradients.first_gradients,
            {"gradients": wide, "patches": wide, "partials": "*fp32"},
            first | {"shares": 66},
        ),
        (kernels.second_maps, {"features": tall, "weight": tall, "partials": "*fp32"}, second | {"splits": 7}),
        (
            gradients.second_gradients,
            {"features_by_columns": wide, "gradients_by_rows": wide, "gradients_by_images": tall, "weight": wide}
            | {"features": "*bf16", "order": "*i32", "weight_out": "*fp32", "out": "*bf16"},
            second | {"rows": 128},
        ),
    ]
    for kernel, pointers, constants in cases:
        options = {"num_warps": 4 if kernel is kernels.second_maps else 8, "num_stages": 3, **OPTIONS}
        found = compiled(kernel, pointers, constants, options, unaligned=("batch", "rows"))
        assert ("wgmma.mma_async" in found.ptx) == (kernel is not kernels.patches_of), kernel.__name__
        assert found.stack == 0, kernel.__name__
        assert found.shared <= 100_000, kernel.__name__  # two programs on a multiprocessor


class TestDevice:
    pytestmark = GPU

    @pytest.mark.parametrize("batch", [128, 96])
    def test_the_papers_sizes(self, batch):
        found = deviations(torch.device("cuda"), batch, PAPER)
        print(found)
        assert all(error < 3e-3 for error in found.values()), found

    def test_a_graph_replays_it_on_other_images(self):
        images, first, second = layers(torch.device("cuda"), PAPER)
        graph, found = captured(lambda: answers(images, first, second))
        images.mul_(-0.5).add_(0.7)
        graph.replay()
        for mine, theirs in zip(found, answers(images, first, second), strict=True):
            assert torch.equal(mine, theirs)

    def test_they_are_faster_than_cudnn(self):
        """By graphs, so that the processor's time is left out."""
        config = RunConfig(precision="bf16")
        network = build(config, torch.Generator().manual_seed(0)).cuda().to(memory_format=torch.channels_last)
        images = torch.rand(128, 1, 28, 28, device="cuda")
        parameters = [*network.conv.parameters(), *network.primary.parameters()]
        gradient = torch.randn(128, 256, 6, 6, device="cuda")
        times = {}
        for way in (True, False):
            network.takes_kernels = lambda _, way=way: way

            def both():
                maps = network.maps(images)
                return torch.autograd.grad(maps, parameters, gradient.to(maps.dtype))

            times[way] = microseconds(both)
            print(f"{'kernels' if way else 'cuDNN'}: {times[way]:.0f} us")
        assert times[True] < times[False]
