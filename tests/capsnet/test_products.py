"""Products that oneDNN makes against those of float64, and where it is not asked."""

import pytest
import torch

from capsnet.products import add_products, product, products

ERRORS = {torch.float64: 1e-14, torch.float32: 1e-6, torch.bfloat16: 5e-3}
"""|difference| / |reference|; measured: 0, 2e-7 and 1.7e-3."""

SHAPES = [(148, 25, 4600), (16, 128, 9216), (9216, 128, 16), (128, 9216, 16), (128, 16, 9216), (3, 5, 7)]


def draw(generator, shape, *, turned, dtype):
    """A matrix whose rows follow each other, or whose columns do."""
    made = torch.randn(shape[::-1] if turned else shape, generator=generator, dtype=torch.float64).to(dtype)
    return made.t() if turned else made


def off(found, wanted):
    return ((found.double() - wanted).norm() / wanted.norm()).item()


@pytest.mark.parametrize("dtype", ERRORS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("turned", [(False, False), (True, False), (False, True), (True, True)], ids=str)
def test_a_product_is_that_of_float64(shape, turned, dtype, generator):
    m, k, n = shape
    left, right = (draw(generator, at, turned=t, dtype=dtype) for at, t in zip([(m, k), (k, n)], turned, strict=True))
    bias = torch.randn(n, generator=generator, dtype=torch.float64).to(dtype)
    exact = left.double() @ right.double()
    assert off(product(left, right), exact) < ERRORS[dtype]
    assert off(product(left, right, bias), exact + bias.double()) < ERRORS[dtype]


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products_of_pairs_are_made_or_added(count, shape, generator):
    m, k, n = shape
    left, right = (torch.randn(count, *at, generator=generator) for at in ((m, k), (k, n)))
    exact = left.double() @ right.double()
    for room in (None, torch.empty(count, m, n)):
        assert off(products(left, right, room), exact) < ERRORS[torch.float32]
    before = torch.randn(count, n, m, generator=generator)
    to = before.clone().transpose(1, 2)
    add_products(to, left, right)
    assert off(to, exact + before.transpose(1, 2)) < ERRORS[torch.float32]


def test_onednn_makes_the_large_products(asked, generator):
    left, right = (torch.randn(at, generator=generator) for at in ((16, 128), (128, 9216)))
    product(left, right)
    products(left[None], right[None])
    add_products(torch.zeros(1, 16, 9216), left[None], right[None])
    assert asked == [(16, 128, 9216)] * 3


def test_it_is_not_asked_for_what_it_would_be_slow_at(asked, generator, monkeypatch):
    """Small products; slices, of which it makes a plain loop; several at once; other types; and if it is switched off."""
    large = torch.randn(32, 128, generator=generator), torch.randn(128, 9216, generator=generator)
    product(large[0], large[1][:, :8000])
    product(large[0][:, :100], large[1][:100])
    product(*(each.double() for each in large))
    product(*(each.bfloat16() for each in large))
    product(large[0], large[1][:, :16].contiguous())
    products(*(each[None].expand(2, -1, -1) for each in large))
    with monkeypatch.context() as without_mkl:
        without_mkl.setattr(torch.backends.mkl, "is_available", lambda: False)
        product(*large)
    torch._C._set_mkldnn_enabled(False)  # torch.backends.mkldnn.flags warns of tf32, whatever is asked of it
    try:
        product(*large)
    finally:
        torch._C._set_mkldnn_enabled(True)
    assert asked == []


def test_what_is_not_a_number_stays_so(asked, generator):
    """A run that diverges has to be seen to."""
    left, right = (torch.randn(at, generator=generator) for at in ((16, 128), (128, 9216)))
    left[3, 4], right[5, 6] = torch.nan, torch.inf
    found = product(left, right, torch.zeros(9216))
    assert asked
    assert found[3].isnan().all()
    assert found[[0, 9]].isnan().sum() == 0
    assert found[[0, 9], 6].isinf().all()
