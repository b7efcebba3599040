"""Each kernel of the convolutions with its programs, tiles and options: tensors in, tensors out."""

from typing import Any

import torch
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from capsnet import convolution_gradient_kernels
from capsnet import convolution_kernels as kernels
from capsnet.convolution_sizes import BLOCK, Sizes, columns_of, order_of_places
from capsnet.kernels import OPTIONS, interpreted

TILE = 128  # rows
SHARES = 66  # of the rows, in first_gradients: with the paper's 256 channels as many programs as multiprocessors


def patches(images: Tensor, sizes: Sizes) -> Tensor:
    """What the first convolution multiplies: [batch * places, padded], in bfloat16."""
    rows, side = len(images) * sizes.places, 64
    out = images.new_empty(rows, sizes.padded, dtype=torch.bfloat16)
    kernels.patches_of[(-(-rows // side), sizes.padded // side)](
        images.contiguous(),
        out,
        rows,
        *sizes.shape[1:],
        channels=sizes.shape[0],
        kernel=sizes.first,
        padded=sizes.padded,
        tile=side,
        columns=side,
        **OPTIONS,
    )
    return out


def features(patches: Tensor, weight: Tensor, bias: Tensor, sizes: Sizes) -> Tensor:
    """ReLU of the first convolution, [batch, places * features], of its weight as [features, padded], both in bfloat16."""
    rows, columns = len(patches), columns_of(sizes.features)
    out = patches.new_empty(rows // sizes.places, sizes.places * sizes.features)
    kernels.first_maps[(-(-rows // TILE), sizes.features // columns)](
        _blocks(patches, TILE, BLOCK),
        _blocks(weight, columns, BLOCK),
        bias,
        out,
        rows,
        features=sizes.features,
        padded=sizes.padded,
        **_tile(columns),
        num_warps=8,
    )
    return out


def shares_of_maps(features: Tensor, weight: Tensor, sizes: Sizes) -> Tensor:
    """The second convolution in parts that are still to be added up: [splits, batch, positions, maps], in float32.

    ``weight``: [maps, taps * features], in bfloat16.
    """
    batch, columns = len(features), columns_of(sizes.maps)
    out = features.new_empty(sizes.splits, batch, sizes.positions, sizes.maps, dtype=torch.float32)
    kernels.second_maps[(sizes.positions, sizes.maps // columns, -(-batch // TILE) * sizes.splits)](
        _blocks(features, TILE, BLOCK),
        _blocks(weight, columns, BLOCK),
        out,
        batch,
        sizes.grid[1],
        sizes.outputs[1],
        sizes.positions,
        **_second(sizes),
        splits=sizes.splits,
        **_tile(columns),
        num_warps=4,
        num_stages=3,
    )
    return out


def second_gradients(gradient: Tensor, weight: Tensor, features: Tensor, sizes: Sizes) -> tuple[Tensor, Tensor]:
    """Of the gradient of the maps, [batch, positions * maps] in bfloat16: that of the weight, that of what went into ReLU.

    The first is [maps, rows, columns, features], in float32, and the second as the features are.
    """
    batch, columns, rows = len(features), columns_of(sizes.features), columns_of(sizes.maps)
    of_weight = features.new_empty(sizes.maps, sizes.second, sizes.second, sizes.features, dtype=torch.float32)
    of_features = torch.empty_like(features)
    tiles = sizes.second**2 * (sizes.maps // rows) + sizes.places * -(-batch // TILE)
    convolution_gradient_kernels.second_gradients[(tiles * (sizes.features // columns),)](
        _blocks(features, BLOCK, columns),
        _blocks(gradient, BLOCK, rows),
        _blocks(gradient, TILE, BLOCK),
        _blocks(weight, BLOCK, columns),
        features,
        order_of_places(sizes, features.device),
        of_weight,
        of_features,
        batch,
        sizes.grid[1],
        sizes.places,
        sizes.positions,
        *sizes.outputs,
        **_second(sizes),
        rows=rows,
        **_tile(columns),
        num_warps=8,
        num_stages=3,
    )
    return of_weight, of_features


def shares_of_first_gradients(features_gradient: Tensor, patches: Tensor, sizes: Sizes) -> Tensor:
    """The gradients of the first weight and bias in parts that are still to be added up: [shares, features, padded]."""
    rows, tile = len(patches), columns_of(sizes.features)
    out = patches.new_empty(SHARES, sizes.features, sizes.padded, dtype=torch.float32)
    convolution_gradient_kernels.first_gradients[(sizes.features // tile, sizes.padded // TILE, SHARES)](
        _blocks(features_gradient.view(rows, sizes.features), BLOCK, tile),
        _blocks(patches, BLOCK, TILE),
        out,
        rows,
        features=sizes.features,
        padded=sizes.padded,
        shares=SHARES,
        **_tile(TILE, tile),
        num_warps=8,
        num_stages=3,
    )
    return out


def _blocks(matrix: Tensor, rows: int, columns: int) -> TensorDescriptor:
    return TensorDescriptor(matrix, list(matrix.shape), list(matrix.stride()), [rows, columns])


def _second(sizes: Sizes) -> dict[str, int]:
    return {"channels": sizes.features, "maps": sizes.maps, "kernel": sizes.second, "stride": sizes.stride}


def _tile(columns: int, rows: int = TILE) -> dict[str, Any]:
    return {"tile": rows, "columns": columns, "step": BLOCK, "interpreted": interpreted(), **OPTIONS}
