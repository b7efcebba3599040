"""Adversarial test images: against networks of which the right answer is known in closed form, and what holds for all."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from capsnet import attacks, further
from capsnet.alterations import ATTACKS
from capsnet.answers import answered, wrong
from capsnet.attacks import attacked, margins
from capsnet.config import FIELDS, RunConfig, make_config
from capsnet.data import Data, Split, read
from capsnet.models import Network, build
from capsnet.registry import MODELS
from capsnet.state import TrainingState
from capsnet.training import DivergedError, evaluate, train

CPU = torch.device("cpu")
CNN = {"model": "cnn", "loss": "cross_entropy", "reconstruction_weight": 0, "dropout": 0.5}
NAMES = ["fgsm_9", "pgd_9"]


class Linear(Network):
    """Scores are the images times a matrix, [classes, pixels]."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__(make_config({}, "here"))
        self.matrix = nn.Parameter(matrix)

    def scores(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.matrix.T


@pytest.fixture(scope="module")
def pixels() -> Split:
    """Bytes of 300 images, black and white among them, and labels of 4 classes."""
    random = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (300, 2, 5, 4), dtype=torch.uint8, generator=random)
    images[:, :, 0] = 255 * (images[:, :, 0] > 127).to(torch.uint8)
    return Split(images, torch.randint(0, 4, (300,), generator=random))


@pytest.fixture(scope="module")
def trained() -> tuple[TrainingState, Data]:
    config = make_config(
        {
            "dataset": "digits",
            "validation_size": 100,
            "augmentation": "none",
            "conv_channels": 8,
            "conv_kernel": 5,
            "primary_types": 2,
            "primary_kernel": 5,
            "decoder_hidden": [16],
            "epochs": 4,
            "learning_rate": 0.01,
        },
        "here",
    )
    data, state = read(config, Path("nowhere"), CPU), TrainingState(config, CPU)
    list(train(state, data))
    return state, data


def answered_right(model: Network, images: Tensor, labels: int = 1) -> Split:
    """The images, whose labels are the network's own answers: of an untrained one hardly another would be right."""
    with torch.no_grad():
        return Split(images, answered(model.scores(images.float() / 255), labels))


@pytest.mark.parametrize("labels", [1, 2])
def test_a_margin_is_negative_where_the_answer_is_wrong(labels: int) -> None:
    random = torch.Generator().manual_seed(labels)
    scores = torch.rand(500, 5, generator=random)
    right = torch.stack([torch.randperm(5, generator=random)[:labels] for _ in range(500)])
    right = right[:, 0] if labels == 1 else right
    found = margins(scores, right)
    assert torch.equal(found < 0, wrong(answered(scores, labels), right))
    for i in range(20):
        mine = {int(label) for label in right[i].flatten()}
        others = [float(scores[i, j]) for j in range(5) if j not in mine]
        assert_close(float(found[i]), min(float(scores[i, j]) for j in mine) - max(others))


def reached(image: Tensor, towards: Tensor, level: int) -> Tensor:
    """Each pixel as far as it may go."""
    return (image.float() + level * towards.sign().reshape(image.shape)).clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("level", [3, 9, 40])
def test_a_linear_network_is_fooled_by_twenty_steps_wherever_an_image_in_reach_fools_it(pixels: Split, level: int) -> None:
    """By hand: a margin against one rival is linear in each pixel, so its least is at the ends of all pixels."""
    matrix = torch.randn(4, 40, generator=torch.Generator().manual_seed(4))
    model = Linear(matrix)
    with torch.no_grad():  # whoever asks
        made = Split(attacked(model, pixels, ATTACKS["pgd"], level), pixels.labels)
        found = margins(model.scores(made.batch(slice(None))), made.labels)
        least = []
        for image, label in zip(pixels.images, pixels.labels, strict=True):
            worst = [reached(image, matrix[rival] - matrix[label], level) for rival in range(4) if rival != label]
            least.append(margins(model.scores(torch.stack(worst) / 255), label.expand(3)).min())
    wanted = torch.stack(least) < 0
    assert torch.equal(found < 0, wanted)
    assert_close(found[~wanted], torch.stack(least)[~wanted])
    assert wanted.sum() > 30
    assert level == 40 or (~wanted).sum() > 10


def test_one_step_goes_against_the_strongest_other_class_alone_and_what_is_mistaken_stays(pixels: Split) -> None:
    """As computed by hand for each image; where black or white ends it, the pixel ends there."""
    matrix = torch.randn(4, 40, generator=torch.Generator().manual_seed(5))
    made = attacked(Linear(matrix), pixels, ATTACKS["fgsm"], 20)
    scores = pixels.batch(slice(None)).flatten(1) @ matrix.T
    wanted = []
    for image, label, score in zip(pixels.images, pixels.labels, scores, strict=True):
        other = max((j for j in range(4) if j != label), key=lambda j: float(score[j]))
        right = score[label] > score[other]
        wanted.append(reached(image, matrix[other] - matrix[label], 20) if right else image)
    assert torch.equal(made, torch.stack(wanted))


def test_a_pixel_without_gradient_stays(pixels: Split) -> None:
    matrix = torch.randn(4, 40, generator=torch.Generator().manual_seed(6))
    matrix[:, ::3] = 0
    for attack in ATTACKS.values():
        made = attacked(Linear(matrix), pixels, attack, 30).flatten(1)
        assert torch.equal(made[:, ::3], pixels.images.flatten(1)[:, ::3])


@pytest.mark.parametrize("name", NAMES)
def test_no_pixel_differs_by_more_than_the_level(trained: tuple[TrainingState, Data], name: str) -> None:
    state, data = trained
    before = torch.get_rng_state()
    made = further.altered(name, data.test, state.model)
    off = (made.int() - data.test.images.int()).abs()
    assert made.dtype == torch.uint8
    assert off.max() == 9
    inside = (data.test.images >= 9) & (data.test.images <= 246)
    inside &= ~wrong(evaluate(state.model, data.test, 1000).predictions, data.test.labels)[:, None, None, None]  # they stay
    inside[:, :, 15], inside[:, :, :, 15] = False, False  # which no primary capsule of this stride sees
    assert (off[inside] == 9).double().mean() > (0.95 if name.startswith("fgsm") else 0.5)
    assert torch.equal(torch.get_rng_state(), before), "nothing is random"
    assert torch.equal(further.altered(name, data.test, state.model), made)
    assert all(weight.grad is None for weight in state.model.parameters())
    assert not torch.are_deterministic_algorithms_enabled()


def test_twenty_steps_find_more_than_one_and_than_an_attack_on_the_cross_entropy(
    trained: tuple[TrainingState, Data],
) -> None:
    """Which has 60 steps, of falling size, and begins at three random places; and all find more than noise of their size."""
    state, data = trained
    model, test, level = state.model, Split(data.test.images[:100], data.test.labels[:100]), 24
    random = torch.Generator().manual_seed(1)
    own = test.batch(slice(None))
    lowest, highest = (own - level / 255).clamp_min(0), (own + level / 255).clamp_max(1)

    def astray(images: Tensor) -> Tensor:
        return model.scores((255 * images).round() / 255).argmax(dim=1) != test.labels

    noise = level / 255 * (2 * torch.randint(0, 2, own.shape, generator=random) - 1)
    noisy = astray((own + noise).clamp(0, 1))
    by_entropy = torch.zeros(100, dtype=torch.bool)
    for _ in range(3):
        images = lowest + (highest - lowest) * torch.rand(own.shape, generator=random)
        for step in range(60):
            images = images.detach().requires_grad_()
            loss = nn.functional.cross_entropy(20 * model.scores(images), test.labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, images)
            images = torch.clamp(images.detach() + level / 4 / 255 * (1 - step / 60) * gradient.sign(), lowest, highest)
        by_entropy |= astray(images)
    one, twenty = (astray(further.altered(f"{name}_{level}", test, model).float() / 255) for name in ("fgsm", "pgd"))
    counts = [int(each.sum()) for each in (astray(own), noisy, one, twenty)]
    assert counts == sorted(counts)
    assert counts[2] > counts[1] + 10
    assert int(by_entropy.sum()) <= counts[3]
    assert counts[3] > counts[2] + 10
    assert counts[3] < 100


def test_the_step_follows_the_gradient_of_a_reference_in_float64(trained: tuple[TrainingState, Data]) -> None:
    """By central differences of the margin in a copy of the network: pixels that matter go where they lessen it."""
    state, data = trained
    few = answered_right(state.model, data.test.images[:6])
    made = attacked(state.model, few, ATTACKS["fgsm"], 8).int() - few.images.int()
    exact = build(state.config, torch.Generator()).double()
    exact.load_state_dict(state.model.state_dict())
    images, tiny = few.images.double() / 255, 1e-5
    seen = 0
    with torch.no_grad():
        for at in range(0, 256, 5):
            step = torch.zeros(256, dtype=torch.float64)
            step[at] = tiny
            moved = [images + sign * step.reshape(1, 1, 16, 16) for sign in (1, -1)]
            up, down = (margins(exact.scores(each), few.labels) for each in moved)
            slope = (up - down) / (2 * tiny)
            inside = (images.flatten(1)[:, at] > 8 / 255) & (images.flatten(1)[:, at] < 1 - 8 / 255) & (slope.abs() > 1e-3)
            assert torch.equal(made.flatten(1)[inside, at], (-8 * slope[inside].sign()).int())
            seen += int(inside.sum())
    assert seen > 50


def test_images_that_are_attacked_together_have_next_to_nothing_to_do_with_each_other(
    trained: tuple[TrainingState, Data], monkeypatch: pytest.MonkeyPatch
) -> None:
    state, data = trained
    few = Split(data.test.images[:50], data.test.labels[:50])
    whole = attacked(state.model, few, ATTACKS["fgsm"], 9)
    monkeypatch.setattr(attacks, "BATCH", 7)
    parts = attacked(state.model, few, ATTACKS["fgsm"], 9)
    assert (whole == parts).double().mean() > 0.999  # by rounding, where a gradient is next to 0


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "bf16"},
        {"primary_types": 8, "conv_channels": 32},
        {"routing": "uniform", "routing_iterations": 1},
        {"routing": "attention", "routing_iterations": 1},
        {"routing": "em"},
        {"routing": "static", "routing_iterations": 1},
        {"routing_gradient": "detached"},
        {"hidden_capsules": (6,), "capsule_bias": True},
        {"primary_coupling": True},
        {"model": "cnn_matched"},
        {**{name: FIELDS[name].default for name in MODELS["cnn"].unread}, **CNN},
        {"dataset": "multidigits", "augmentation": "shift(pixels=4)"},
    ],
    ids=str,
)
def test_every_network_can_be_attacked(
    changes: dict[str, object], tiny: Callable[..., RunConfig], data_of: Callable[[RunConfig], Data]
) -> None:
    """Before any training, too: in one step the margins of nearly all images fall."""
    model = build(tiny(**changes), torch.Generator().manual_seed(2))
    test = data_of(tiny(**changes)).test
    few = answered_right(model, test.images[:40], test.labels.shape[1:].numel())
    made = further.altered("fgsm_4", few, model)
    with torch.no_grad():
        before, after = (margins(model.scores(images.float() / 255), few.labels).double() for images in (few.images, made))
    assert (after < before).double().mean() > 0.9


def test_the_fast_convolutions_are_fooled_by_what_the_plain_ones_found() -> None:
    """A network whose convolutions are in the frequency domain, which gives images no gradient, has plain ones meanwhile."""
    model: Network = build(RunConfig(batch_size=128, conv_channels=64, primary_types=16), torch.Generator().manual_seed(2))
    images = torch.randint(0, 256, (8, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(7))
    split = answered_right(model, images)
    assert model.spectral
    assert model.takes_spectra(split.batch(slice(None)))
    made = further.altered("fgsm_2", split, model)
    with torch.no_grad():
        before, after = (margins(model.scores(each.float() / 255), split.labels) for each in (images, made))
    assert (after < before).all()


def test_a_gradient_that_is_not_finite_is_no_robustness(pixels: Split) -> None:
    class Broken(Linear):
        def scores(self, images: Tensor) -> Tensor:
            return (super().scores(images) * 0).sqrt()  # 0 everywhere, which is no mistake

    with pytest.raises(DivergedError, match="gradient of the network's scores with respect to its images is not finite"):
        attacked(Broken(torch.ones(4, 40)), pixels, ATTACKS["fgsm"], 9)


def test_two_labels_are_lost_with_one_of_them(data_of: Callable[[RunConfig], Data], tiny: Callable[..., RunConfig]) -> None:
    config = tiny(dataset="multidigits", augmentation="shift(pixels=4)", train_size=0, epochs=8, learning_rate=0.01)
    data, state = data_of(config), TrainingState(config, CPU)
    list(train(state, data))
    few = Split(data.test.images[:400], data.test.labels[:400])
    made = Split(further.altered("pgd_16", few, state.model), few.labels)
    assert evaluate(state.model, made, 1000).error > evaluate(state.model, few, 1000).error + 5


def test_twenty_steps_are_of_a_quarter_of_the_level(pixels: Split) -> None:
    """So that in four of them an image may be at its bounds, and it has sixteen to go on along them."""
    seen = []

    class Watched(Linear):
        def scores(self, images: Tensor) -> Tensor:
            if images.requires_grad:
                seen.append(images.detach().clone())
            return super().scores(images)

    model = Watched(torch.randn(2, 40, generator=torch.Generator().manual_seed(8)))
    few = answered_right(model, pixels.images[:10])
    attacked(model, few, ATTACKS["pgd"], 32)
    assert len(seen) == 20
    assert_close(seen[0], few.batch(slice(None)))
    inside = (seen[0] > 8 / 255) & (seen[0] < 247 / 255)
    off = (255 * (seen[1] - seen[0]).abs())[inside]
    assert_close(off, torch.full_like(off, 8.0), rtol=0, atol=1e-3)
