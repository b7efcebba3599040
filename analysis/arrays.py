"""Arrays as statistics take them: with the axes that they name, of finite numbers, and in pairs of one shape."""

from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = TypeVar("Array", NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_])


def finite(values: ArrayLike, axes: str) -> NDArray[np.float64]:
    """The values as floats, if they are finite and have one axis for each name in axes."""
    array = np.asarray(values, dtype=float)
    if array.ndim != len(axes.split(", ")):
        raise ValueError(f"expected an array [{axes}], not one of shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"values must be finite: {array}")
    return array


def same_shape(first: Array, second: Array) -> tuple[Array, Array]:
    """Both, if they have one shape."""
    if first.shape != second.shape:
        raise ValueError(f"pairs have the same shape, not {first.shape} and {second.shape}")
    return first, second
