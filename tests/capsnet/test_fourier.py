"""The primary capsules' convolution by its spectrum, against torch's plain convolution in float64."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from capsnet.fourier import Geometry, geometry_of, pays, primary_maps, spectrum, tiles, transforms

# (height, width, first kernel, second kernel, stride): the paper's MNIST; quick's; odd sides; a stride that divides nothing;
# stride 1; a stride beyond the kernel; pixels at the right and bottom that no output sees
GEOMETRIES = [(28, 28, 9, 9, 2), (16, 16, 5, 5, 2), (17, 16, 5, 4, 2), (18, 21, 3, 5, 3), (15, 15, 4, 3, 1), (16, 16, 5, 3, 4)]
ERRORS = {torch.float64: 1e-13, torch.float32: 2e-6, torch.bfloat16: 2e-2}
"""|difference| / |reference| that is allowed for each type of operand; measured: 2e-15, 5e-7, 6e-3."""


def layers(first_kernel, second_kernel, stride, generator, channels=2, hidden=5, maps=6):
    first, second = nn.Conv2d(channels, hidden, first_kernel), nn.Conv2d(hidden, maps, second_kernel, stride)
    for parameter in (*first.parameters(), *second.parameters()):
        nn.init.uniform_(parameter, -0.2, 0.2, generator=generator)
    return first.double(), second.double()


def relative(found, wanted):
    return ((found.double() - wanted).norm() / wanted.norm()).item()


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_maps_and_gradients_are_the_plain_convolutions(geometry, dtype, generator):
    height, width, *rest = geometry
    first, second = layers(*rest, generator)
    images = torch.rand(3, 2, height, width, generator=generator, dtype=torch.float64)
    parameters = [*first.parameters(), *second.parameters()]
    wanted = second(first(images).relu())
    gradient = torch.randn(wanted.shape, generator=generator, dtype=torch.float64)
    wanted_gradients = torch.autograd.grad(wanted, parameters, gradient)

    first, second = (layer.to(dtype) for layer in (first, second))
    found = primary_maps(images.to(dtype), first, second, dtype)
    assert found.dtype == dtype
    assert relative(found, wanted) < ERRORS[dtype]
    found_gradients = torch.autograd.grad(found, [*first.parameters(), *second.parameters()], gradient.to(dtype))
    for mine, theirs in zip(found_gradients, wanted_gradients, strict=True):
        assert relative(mine, theirs) < ERRORS[dtype]
    with torch.no_grad():
        assert relative(primary_maps(images.to(dtype), first, second, dtype), wanted) < ERRORS[dtype]


def test_products_that_onednn_makes_change_nothing(generator, asked, monkeypatch):
    """As those of the paper's network are: the hidden layer, and the transforms of pixels, taps and outputs, there and back."""
    first, second = layers(9, 9, 2, generator, channels=1)
    images = torch.rand(3, 1, 28, 28, generator=generator, dtype=torch.float64)
    wanted = second(first(images).relu())
    gradient = torch.randn(wanted.shape, generator=generator, dtype=torch.float64)
    exact = torch.autograd.grad(wanted, [*first.parameters(), *second.parameters()], gradient)
    first, second = first.float(), second.float()
    monkeypatch.setattr("capsnet.products.LARGE", 0)
    found = primary_maps(images.float(), first, second, torch.float32)
    assert relative(found, wanted) < ERRORS[torch.float32]
    for mine, theirs in zip(
        torch.autograd.grad(found, [*first.parameters(), *second.parameters()], gradient.float()), exact, strict=True
    ):
        assert relative(mine, theirs) < ERRORS[torch.float32]
    assert len(asked) == 1 + 3 + 3


def test_rounded_operands_cost_what_rounding_costs(generator):
    """A number of 8 bits is off by 2**-9, and so is a sum of such products. The gradient of the first convolution sums what has
    either sign, and is off by many times that; how many, torch's own convolutions say."""
    first, second = layers(9, 9, 2, generator, channels=1, hidden=32, maps=32)
    images = torch.rand(8, 1, 28, 28, generator=generator, dtype=torch.float64)
    wanted = second(first(images).relu())
    gradient = torch.randn(wanted.shape, generator=generator, dtype=torch.float64)
    exact = torch.autograd.grad(wanted, [*first.parameters(), *second.parameters()], gradient)
    first, second, images = first.float(), second.float(), images.float()
    parameters = [*first.parameters(), *second.parameters()]

    found = primary_maps(images, first, second, torch.bfloat16)
    assert found.dtype == torch.float32
    assert 1e-4 < relative(found, wanted) < ERRORS[torch.bfloat16]
    mine = torch.autograd.grad(found, parameters, gradient.float())
    with torch.autocast("cpu", torch.bfloat16):
        plain = second(first(images).relu())
    theirs = torch.autograd.grad(plain, parameters, gradient.bfloat16())
    for name, a, b, reference in zip(
        ("conv.weight", "conv.bias", "primary.weight", "primary.bias"), mine, theirs, exact, strict=True
    ):
        assert relative(a, reference) < 2.5 * max(relative(b, reference), 2**-8), name
    assert all(p.dtype == torch.float32 for p in mine)


def test_pieces_are_parts_of_the_whole(generator, monkeypatch):
    """Without a gradient images are taken a piece at a time; an answer depends on its own image only."""
    first, second = layers(5, 5, 2, generator)
    images = torch.rand(7, 2, 16, 16, generator=generator, dtype=torch.float64)
    whole = primary_maps(images, first, second, torch.float64)
    monkeypatch.setattr("capsnet.fourier.PIECE", 3)
    with torch.no_grad():
        torch.testing.assert_close(primary_maps(images, first, second, torch.float64), whole.detach(), rtol=0, atol=1e-14)


def test_the_papers_geometry_takes_148_products():
    geometry = Geometry((20, 20), 9, 2)
    assert (geometry.outputs, geometry.taps, geometry.tile, geometry.rank) == ((6, 6), 5, (10, 10), 148)
    by = transforms(geometry, torch.device("cpu"), torch.float32)
    assert (by.pixels.shape, by.taps.shape, by.outputs.shape) == ((148, 100), (148, 25), (36, 148))


@pytest.mark.parametrize("size", [(20, 20), (12, 12), (9, 14), (7, 5)], ids=str)
@pytest.mark.parametrize(("kernel", "stride"), [(5, 2), (3, 1), (5, 3)])
def test_the_rank_is_the_number_of_rows(size, kernel, stride):
    geometry = Geometry(size, kernel, stride)
    by = transforms(geometry, torch.device("cpu"), torch.float64)
    assert {by.pixels.shape[0], by.taps.shape[0], by.outputs.shape[1]} == {geometry.rank}


def test_the_transforms_are_numpys(generator):
    """Rows of D by threes are a - (-b), a, b of the discrete Fourier transform, and those of real frequencies its value."""
    geometry = Geometry((12, 12), 5, 2)
    tile = torch.rand(geometry.tile, generator=generator, dtype=torch.float64)
    theirs = np.fft.fft2(tile.numpy())
    mine = (transforms(geometry, torch.device("cpu"), torch.float64).pixels @ tile.flatten()).numpy()
    found = set()
    rows = iter(mine)
    for p in range(geometry.tile[0]):
        for q in range(geometry.tile[1]):
            other = (-p % geometry.tile[0], -q % geometry.tile[1])
            if (p, q) == other:
                np.testing.assert_allclose(next(rows), theirs[p, q].real, atol=1e-12)
            elif other not in found:
                total, real, imaginary = next(rows), next(rows), next(rows)
                np.testing.assert_allclose(complex(real, imaginary), theirs[p, q], atol=1e-12)
                np.testing.assert_allclose(total, real + imaginary, atol=1e-12)
            found.add((p, q))
    assert next(rows, None) is None


def test_spectra_of_kernels_do_not_depend_on_the_memory_format(generator):
    _, second = layers(5, 5, 2, generator)
    geometry = Geometry((12, 12), 5, 2)
    plain = spectrum(second.weight, geometry, torch.float64)
    torch.testing.assert_close(spectrum(second.weight.to(memory_format=torch.channels_last), geometry, torch.float64), plain)


def test_geometry_of_two_layers(generator):
    assert geometry_of((28, 28), *layers(9, 9, 2, generator)) == Geometry((20, 20), 9, 2)


def counted(function, *operands):
    """What torch counts of a function's matrix products and convolutions, of which nothing is computed."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        function(*operands)
    return counter.get_total_flops()


@pytest.mark.parametrize(
    ("size", "kernel", "hidden", "maps", "enough"), [(20, 9, 256, 256, 14), (16, 9, 64, 128, 34), (24, 13, 12, 96, 33)]
)
def test_it_pays_where_torch_counts_two_thirds_of_the_plain_convolutions_products(size, kernel, hidden, maps, enough):
    """Of the paper's network, and of others whose transforms take more of it, at the batches where it begins to."""
    geometry = Geometry((size, size), kernel, 2)
    first, second = nn.Conv2d(1, hidden, 1, device="meta"), nn.Conv2d(hidden, maps, kernel, 2, device="meta")
    for batch in (enough - 1, enough):
        images = torch.empty(batch, 1, size, size, device="meta")
        made = counted(primary_maps, images, first, second, torch.float32)
        made -= counted(tiles, images, first, geometry, torch.float32)  # which the plain convolution takes, too
        plain = counted(second, torch.empty(batch, hidden, size, size, device="meta"))
        assert pays(geometry, hidden, maps, batch) == (2 * plain >= 3 * made) == (batch == enough)
