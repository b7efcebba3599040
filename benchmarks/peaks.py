"""What this machine can do at most: multiply matrices, and move memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch

from benchmarks.clock import Spread, alternate, timed
from benchmarks.floors import inputs
from capsnet.config import RunConfig
from capsnet.precision import OPERANDS, float32_products


@dataclass(frozen=True)
class Product:
    """``count`` products of [rows, inner] with [inner, columns]."""

    name: str
    count: int
    rows: int
    inner: int
    columns: int

    @property
    def flops(self) -> int:
        """2 per multiply-add."""
        return 2 * self.count * self.rows * self.inner * self.columns


@dataclass(frozen=True)
class Peaks:
    """What was measured.

    Attributes:
        products: precision -> name of the product -> FLOP/s.
        bandwidth: bytes per second, read and written, of a copy of an array that fits no cache.
        shapes: name of the product -> how large it is.
    """

    products: dict[str, dict[str, Spread]]
    bandwidth: Spread
    shapes: dict[str, str]

    def with_those_of(self, later: "Peaks") -> "Peaks":
        """All samples of two measurements of the same."""
        together = {
            precision: {name: Spread(rate.samples + later.products[precision][name].samples) for name, rate in rates.items()}
            for precision, rates in self.products.items()
        }
        return Peaks(together, Spread(self.bandwidth.samples + later.bandwidth.samples), self.shapes)

    @property
    def flops_per_second(self) -> dict[str, float]:
        """The most that any product reached in any round, by precision: a peak, not a mean."""
        return {precision: max(rate.high for rate in rates.values()) for precision, rates in self.products.items()}

    @property
    def bytes_per_second(self) -> float:
        """The most that any copy reached."""
        return self.bandwidth.high


def products(config: RunConfig, square: int) -> list[Product]:
    """The network's own products at the config's batch size, convolutions as products with patches, and a large square."""
    batch, (channels, height, width) = config.batch_size, config.shape
    positions = (height - config.conv_kernel + 1) * (width - config.conv_kernel + 1)
    capsules = config.facts.classes * config.class_dim
    patch = config.conv_channels * config.primary_kernel**2
    maps = config.primary_types * config.primary_dim
    hidden = [capsules, *config.decoder_hidden, prod(config.shape)]
    widest = max(range(len(hidden) - 1), key=lambda i: hidden[i] * hidden[i + 1])
    return [
        Product("square", 1, square, square, square),
        Product("conv1", 1, batch * positions, channels * config.conv_kernel**2, config.conv_channels),
        Product("PrimaryCaps", 1, batch * prod(config.primary_grid), patch, maps),
        Product("votes", inputs(config), batch, config.primary_dim, capsules),
        Product("decoder", 1, batch, hidden[widest], hidden[widest + 1]),
    ]


def measure(
    config: RunConfig, device: torch.device, precisions: Sequence[str], budget: float, *, square: int, copied: int
) -> Peaks:
    """The peaks of a device.

    Args:
        config: the network whose products are tried.
        device: the one to measure.
        precisions: of products.
        budget: seconds for all of it.
        square: side of the large square product.
        copied: bytes of the array that is copied; larger than any cache.
    """
    wanted = products(config, square)
    source = torch.ones(copied // 4, device=device)
    target = torch.empty_like(source)
    share = budget / (len(precisions) + 1)
    seconds = alternate({"copy": timed(lambda: target.copy_(source), device)}, share, most=20)["copy"]
    rates: dict[str, dict[str, Spread]] = {}
    for precision in precisions:
        with float32_products(precision):
            operands = {product.name: _operands(product, OPERANDS[precision], device) for product in wanted}
            passes = {
                name: timed(lambda a=a, b=b, out=out: torch.bmm(a, b, out=out), device)  # type: ignore[misc]
                for name, (a, b, out) in operands.items()
            }
            taken = alternate(passes, share, most=20)
        rates[precision] = {product.name: taken[product.name].map(lambda s, p=product: p.flops / s) for product in wanted}  # type: ignore[misc]
        del operands, passes
    shapes = {p.name: f"{f'{p.count} × ' if p.count > 1 else ''}[{p.rows}, {p.inner}] [{p.inner}, {p.columns}]" for p in wanted}
    return Peaks(rates, seconds.map(lambda s: 2 * source.nbytes / s), shapes)


def _operands(product: Product, dtype: torch.dtype, device: torch.device) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator(device).manual_seed(0)

    def random(*shape: int) -> torch.Tensor:  # of zeros, a card's clock would run faster than it ever does at work
        return torch.randn(shape, device=device, generator=generator).to(dtype)

    a = random(product.count, product.rows, product.inner)
    b = random(product.count, product.inner, product.columns)
    return a, b, torch.empty(product.count, product.rows, product.columns, dtype=dtype, device=device)
