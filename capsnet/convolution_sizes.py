"""The sizes of two convolutions for capsnet.convolution_triton, and how its kernels cut them: by nothing else."""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

BLOCK = 64  # channels of both convolutions come in multiples of it
SLOTS = 264  # tiles of second_maps at once on the 132 multiprocessors of an H100 or H200


@dataclass(frozen=True)
class Sizes:
    """Of images and of both convolutions, square kernels without padding; the first has a stride of 1."""

    shape: tuple[int, int, int]  # of an image
    features: int
    first: int  # side of its kernel
    maps: int
    second: int
    stride: int

    @classmethod
    def of(cls, shape: tuple[int, int, int], first: nn.Conv2d, second: nn.Conv2d) -> "Sizes":
        """Of images of this shape and two layers."""
        return cls(
            shape, first.out_channels, first.kernel_size[0], second.out_channels, second.kernel_size[0], second.stride[0]
        )

    @property
    def numbers(self) -> tuple[int, ...]:
        """What :func:`capsnet.convolution_triton.trusted` takes, the image's first, which a compiler has as constants."""
        return *self.shape, self.features, self.first, self.maps, self.second, self.stride

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the features."""
        return self.shape[1] - self.first + 1, self.shape[2] - self.first + 1

    @property
    def outputs(self) -> tuple[int, int]:
        """Rows and columns of the maps."""
        rows, columns = ((side - self.second) // self.stride + 1 for side in self.grid)
        return rows, columns

    @property
    def places(self) -> int:
        """How many there are in a feature map, which is what the first convolution makes."""
        return self.grid[0] * self.grid[1]

    @property
    def positions(self) -> int:
        """How many there are in a map, which is what the second convolution makes."""
        return self.outputs[0] * self.outputs[1]

    @property
    def numbers_of_patch(self) -> int:
        """What the first convolution adds up."""
        return self.shape[0] * self.first**2

    @property
    def padded(self) -> int:
        """Columns of the patches."""
        return padded(self.numbers_of_patch)

    @property
    def splits(self) -> int:
        """Into how many parts the sums of the maps are cut: few, but so that the last round of tiles is nearly full.

        It depends on the sizes alone, and so an image's maps on nothing else.
        """
        tiles = self.positions * self.maps // columns_of(self.maps)

        def worth(splits: int) -> float:
            return tiles * splits / (-(-tiles * splits // SLOTS) * SLOTS) - 0.015 * splits

        return max(range(1, 9), key=worth)

    def supported(self, batch: int) -> bool:
        """Whether the kernels take them; they count in 32 bits."""
        if self.features % BLOCK or self.maps % BLOCK:
            return False
        return batch * max(self.places * max(self.features, self.padded), self.splits * self.positions * self.maps) < 2**31


def padded(numbers: int) -> int:
    """Columns of patches of so many numbers: they and the 1 for the bias, up to whole blocks."""
    return -(-(numbers + 1) // 128) * 128


def columns_of(channels: int) -> int:
    """The widest tile that channels, a multiple of ``BLOCK``, divide into."""
    return 128 if channels % 128 == 0 else BLOCK


@functools.lru_cache(maxsize=64)
def order_of_places(sizes: Sizes, device: torch.device) -> Tensor:
    """The places of the features, those that most positions see first: a GPU that begins with long sums ends evenly."""

    def seen(side: int, outputs: int) -> list[int]:
        return [sum(0 <= y - sizes.stride * i < sizes.second for i in range(outputs)) for y in range(side)]

    rows, columns = (seen(side, outputs) for side, outputs in zip(sizes.grid, sizes.outputs, strict=True))
    terms = [row * column for row in rows for column in columns]
    return torch.tensor(sorted(range(len(terms)), key=lambda place: -terms[place]), dtype=torch.int32, device=device)
