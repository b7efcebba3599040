"""The two losses, against numbers computed by hand."""

import pytest
import torch

from capsnet import losses
from capsnet.models import lengths


def test_margin_loss_by_hand():
    """Summed over classes, averaged over the batch, with squares and a half for the absent classes."""
    rows = torch.tensor([[0.8, 0.3, 0.05], [0.8, 0.3, 0.05]])
    first = 0.1**2 + 0.5 * 0.2**2  # class 0 is right: 0.03
    second = 0.85**2 + 0.5 * (0.7**2 + 0.2**2)  # class 2 is right: 0.9875
    assert losses.margin(rows[:1], torch.tensor([0])).item() == pytest.approx(first, rel=1e-6)
    assert losses.margin(rows[1:], torch.tensor([2])).item() == pytest.approx(second, rel=1e-6)
    assert losses.margin(rows, torch.tensor([0, 2])).item() == pytest.approx(0.50875, rel=1e-6)


def test_margin_loss_is_0_beyond_the_margins():
    assert losses.margin(torch.tensor([[0.95, 0.05, 0.1]]), torch.tensor([0])) == 0


def test_margin_loss_of_an_empty_network():
    """All lengths 0: 0.9 squared, and finite gradients down to the capsules."""
    capsules = torch.zeros(4, 10, 16, requires_grad=True)
    loss = losses.margin(lengths(capsules), torch.arange(4))
    loss.backward()
    assert loss.item() == pytest.approx(0.81)
    assert capsules.grad.isfinite().all()


def test_margin_loss_pushes_lengths_the_right_way():
    rows = torch.full((1, 3), 0.5, requires_grad=True)
    losses.margin(rows, torch.tensor([1])).backward()
    torch.testing.assert_close(rows.grad, torch.tensor([[0.4, -0.8, 0.4]]))


def test_reconstruction_loss_by_hand():
    """Squares summed over channels and pixels, averaged over the batch."""
    images = torch.tensor([[[[0.0, 1.0], [0.5, 0.0]]], [[[0.0, 0.0], [0.0, 0.0]]]])
    made = torch.tensor([[[[0.5, 1.0], [0.0, 0.2]]], [[[1.0, 0.0], [0.0, 0.0]]]])
    assert losses.reconstruction(images, made).item() == pytest.approx(((0.25 + 0.25 + 0.04) + 1) / 2)


def test_reconstruction_loss_is_784_times_the_mean_on_mnist(generator):
    """The paper's 0.0005 is 0.392 times the mean squared error per pixel."""
    images, made = torch.rand(2, 5, 1, 28, 28, generator=generator)
    mean = torch.nn.functional.mse_loss(made, images)
    torch.testing.assert_close(5e-4 * losses.reconstruction(images, made), 0.392 * mean)


def test_reconstruction_loss_sums_channels_too(generator):
    images, made = torch.rand(2, 3, 3, 4, 4, generator=generator)
    torch.testing.assert_close(losses.reconstruction(images, made), 48 * torch.nn.functional.mse_loss(made, images))
