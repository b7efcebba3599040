"""The losses, against numbers computed by hand and their formulas in float64."""

import numpy as np
import pytest
import torch

from capsnet import losses
from capsnet.config import RunConfig
from capsnet.models import lengths
from capsnet.objectives import LOSSES


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


def batch(generator, bounded=True):
    """Scores in float64 and labels; no score lies where a loss has a kink."""
    scores = torch.rand(7, 5, generator=generator, dtype=torch.float64)
    return scores if bounded else 6 * scores - 3, torch.tensor([0, 4, 2, 2, 1, 3, 0])


def by_numpy(text, scores, labels, done):
    """Each formula for each class of each image, as its paper has it, in float64."""
    name, _, rest = text.partition("(")
    given = {
        key: float(value) for key, _, value in (part.strip().partition("=") for part in rest.rstrip(")").split(",") if part)
    }
    total = 0.0
    for row, t in zip(scores.tolist(), labels.tolist(), strict=True):
        if name == "margin":
            plus, minus, down = (given.get(k, d) for k, d in [("m_plus", 0.9), ("m_minus", 0.1), ("down_weight", 0.5)])
            total += max(0, plus - row[t]) ** 2 + sum(down * max(0, v - minus) ** 2 for i, v in enumerate(row) if i != t)
        elif name == "spread":
            start, end = given.get("start", 0.2), given.get("end", 0.9)
            m = start + (end - start) * done
            total += sum(max(0, m - (row[t] - v)) ** 2 for i, v in enumerate(row) if i != t)
        elif name == "cross_entropy":
            scale = given.get("scale", 1)
            total += np.log(np.sum(np.exp(scale * np.array(row)))) - scale * row[t]
        else:
            scale, threshold = given.get("scale", 1), given.get("threshold", 0)
            p = 1 / (1 + np.exp(-scale * (np.array(row) - threshold)))
            total -= sum(np.log(q) if i == t else np.log(1 - q) for i, q in enumerate(p))
    return total / len(labels)


TEXTS = [
    "margin",
    "margin(m_plus=0.8, m_minus=0.3, down_weight=2)",
    "cross_entropy",
    "cross_entropy(scale=12)",
    "sigmoid_cross_entropy",
    "sigmoid_cross_entropy(scale=10, threshold=0.5)",
    "spread",
    "spread(start=0.5, end=0.5)",
    "spread(start=0.1, end=1)",
]


@pytest.mark.parametrize("done", [0.0, 0.375])
@pytest.mark.parametrize("text", TEXTS)
def test_every_loss_is_its_formula(text, done, generator):
    scores, labels = batch(generator)
    found = RunConfig(loss=text).objective.of(scores, labels, torch.tensor(done, dtype=torch.float64))
    assert found.shape == ()
    assert found.item() == pytest.approx(by_numpy(text, scores, labels, done), rel=1e-12)
    single = RunConfig(loss=text).objective.of(scores.float(), labels, torch.tensor(done))
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(found.item(), rel=1e-5)


@pytest.mark.parametrize("text", TEXTS)
def test_every_losss_gradient_is_that_of_its_values(text, generator):
    scores, labels = batch(generator)
    of = RunConfig(loss=text).objective.of
    done = torch.tensor(0.25, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: of(s, labels, done), scores.requires_grad_())


def test_every_loss_is_tried_here():
    assert {text.partition("(")[0] for text in TEXTS} == LOSSES.keys()


def test_the_default_loss_is_the_margin_loss_to_the_bit(generator):
    scores, labels = torch.rand(64, 10, generator=generator), torch.randint(0, 10, (64,), generator=generator)
    right = labels[:, None] == torch.arange(10)
    absent = (scores - 0.1).relu() ** 2
    before = torch.where(right, (0.9 - scores).relu() ** 2, 0.5 * absent).sum(dim=1).mean()
    assert torch.equal(RunConfig().objective.of(scores, labels, torch.tensor(0.5)), before)
    assert torch.equal(losses.margin(scores, labels), before)


@pytest.mark.parametrize("text", TEXTS)
def test_extreme_scores_give_finite_losses_and_gradients(text):
    """Logits have no bounds, and an untrained capsule may have length 0."""
    scores = torch.tensor([[0.0, 0.0, 0.0], [1e4, -1e4, 0.0], [-1e4, 1e4, 3.0]], requires_grad=True)
    loss = RunConfig(loss=text).objective.of(scores, torch.tensor([0, 0, 0]), torch.tensor(1.0))
    loss.backward()
    assert loss.isfinite()
    assert scores.grad.isfinite().all()


def test_lengths_alone_leave_the_softmax_in_doubt():
    """What cross_entropy's docstring says of a scale of 1 with ten classes."""
    sure = torch.zeros(1, 10)
    sure[0, 3] = 1
    loss = RunConfig(loss="cross_entropy").objective.of(sure, torch.tensor([3]), torch.tensor(0.0)).item()
    assert loss == pytest.approx(1.46, abs=0.005)
    assert np.exp(-loss) == pytest.approx(0.23, abs=0.005)
    assert torch.sigmoid(torch.tensor([-5.0, 5.0])).tolist() == pytest.approx([0.007, 0.993], abs=5e-4)


def test_the_right_classs_own_score_is_no_rival_of_the_spread_loss():
    assert losses.spread(torch.tensor([[0.95, 0.05]]), torch.tensor([0]), 0.9).item() == pytest.approx(0.0, abs=1e-9)
    assert losses.spread(torch.tensor([[0.3, 0.3]]), torch.tensor([0]), 0.9).item() == pytest.approx(0.81)
