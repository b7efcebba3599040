"""The compiled step as a GPU would take it, on a machine without one: what is traced, what is generated."""

from pathlib import Path

import pytest

from tests.absent_gpu import made_of

pytest.importorskip("triton", reason="Triton is not installed")
PAPER = {"precision": "bf16"}
VARIANTS = [
    PAPER,
    PAPER | {"routing_iterations": 1, "reconstruction_weight": 0},
    PAPER | {"precision": "tf32", "capsule_bias": True},
    PAPER | {"dataset": "multimnist", "augmentation": "shift(pixels=4)", "validation_size": 0},
    PAPER | {"dataset": "cifar10", "none_of_the_above": True},
    PAPER | {"hidden_capsules": [16], "capsule_bias": True},
    PAPER | {"routing": "em", "loss": "spread", "augmentation": "affine(pixels=1)"},
    PAPER | {"routing": "attention", "routing_iterations": 1},
    PAPER | {"model": "cnn", "loss": "cross_entropy", "reconstruction_weight": 0, "dropout": 0.5},
]


def test_a_step_is_one_graph_with_the_kernels_that_are_for_it(tmp_path: Path) -> None:
    """Forward and back; gradients lie as Adam's kernel takes them, but for one that is small, of images with three channels."""
    found = made_of(VARIANTS, tmp_path)
    ways = "two_convolutions", "two_convolutions_gradients", "route_votes", "route_votes_gradients"
    counts = [tuple(made.operators.get(f"capsnet.{way}.default", 0) for way in ways) for made in found]
    both, routing, convolutions, neither = (1, 1, 1, 1), (0, 0, 1, 1), (1, 1, 0, 0), (0, 0, 0, 0)
    # how cuDNN, which has to be left out here, lays out the gradients of plain convolutions, isn't known
    odd = [made.odd for made, (own, *_) in zip(found, counts, strict=True) if own]
    assert odd == [
        ["conv.weight"] if fields.get("dataset") == "cifar10" else []
        for fields, (own, *_) in zip(VARIANTS, counts, strict=True)
        if own
    ]
    layers = (1, 1, 2, 2)
    assert counts == [both, both, routing, both, convolutions, layers, convolutions, convolutions, neither]


@pytest.mark.slow
def test_kernels_are_generated_for_a_step(tmp_path: Path) -> None:
    """What is generated passes its own assertions about strides, and Triton compiles it for sm_90; few launches are left."""
    [made] = made_of([PAPER], tmp_path, generate=True)
    assert not made.odd
    assert set(made.kernels.values()) == {1}
    assert 20 < len(made.kernels) < 30
    assert made.compiled >= len(made.kernels)
