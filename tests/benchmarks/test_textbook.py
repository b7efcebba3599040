"""The textbook version computes what ours does, and is fed as ours is."""

import pytest
import torch

from benchmarks.textbook import Pictures, Textbook, epochs
from benchmarks.training import pictures, usual
from capsnet import losses
from capsnet.config import RunConfig
from capsnet.models import build, lengths


def both(config, count, factor=1.0):
    """Our network, the textbook version with its weights, images and labels; ``factor`` makes the class capsules longer."""
    ours = build(config, torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours.capsules.weight *= factor
    split = pictures(config, count, torch.device("cpu"))
    return ours, Textbook(config).adopt(ours), split.batch(slice(None)), split.labels


def our_loss(ours, weight, images, labels):
    capsules = ours.encode(images)
    made = ours.reconstruct(capsules, labels)
    return capsules, losses.margin(lengths(capsules), labels) + weight * losses.reconstruction(images, made)


@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_same_capsules_loss_and_gradients(small, iterations):
    """With a reconstruction weight of 1, so that the decoder's part of the loss is seen."""
    config = small(routing_iterations=iterations, reconstruction_weight=1.0)
    ours, textbook, images, labels = both(config, 20, factor=100.0)
    capsules, loss = our_loss(ours, 1.0, images, labels)
    assert 0.1 < lengths(capsules).median() < 0.9  # both sides of the margin loss have something to say
    theirs, made = textbook(images, labels)
    torch.testing.assert_close(theirs, capsules, rtol=1e-5, atol=1e-5)
    their_loss = textbook.loss(images, labels, theirs, made)
    torch.testing.assert_close(their_loss, loss, rtol=1e-5, atol=0)
    loss.backward()
    their_loss.backward()
    torch.testing.assert_close(textbook.conv.weight.grad, ours.conv.weight.grad, rtol=1e-4, atol=1e-5)
    votes = ours.capsules.weight.grad.unflatten(2, (10, config.class_dim)).permute(0, 2, 3, 1)[None]
    torch.testing.assert_close(textbook.digits.weight.grad, votes, rtol=1e-4, atol=1e-6)


def test_same_function_at_the_papers_size(paper):
    ours, textbook, images, labels = both(paper, 2)
    with torch.no_grad():
        capsules, loss = our_loss(ours, paper.reconstruction_weight, images, labels)
        theirs, made = textbook(images, labels)
        torch.testing.assert_close(theirs, capsules, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(textbook.loss(images, labels, theirs, made), loss, rtol=1e-5, atol=0)
    assert sum(p.numel() for p in textbook.parameters()) == 8_215_568


def test_pictures_are_shifted_with_zeros_moving_in():
    images = torch.arange(1, 28 * 28 + 1).remainder(255).add(1).to(torch.uint8).view(1, 1, 28, 28)
    shown = Pictures(images, torch.tensor([7]), shift=2)
    padded = torch.nn.functional.pad(images[0, 0].float() / 255, (2, 2, 2, 2))
    allowed = {tuple(padded[y : y + 28, x : x + 28].flatten().tolist()) for y in range(5) for x in range(5)}
    seen = set()
    for _ in range(60):
        image, label = shown[0]
        assert image.shape == (1, 28, 28)
        assert label == 7
        seen.add(tuple(image.flatten().tolist()))
    assert seen <= allowed
    assert len(seen) > 10


def test_an_epoch_trains(small, cpu):
    """On 32 images, again and again: the loss falls."""
    config = small()
    split = pictures(config, 32, cpu)
    model = Textbook(config)
    images, labels = split.batch(slice(None)), split.labels

    def loss():
        with torch.no_grad():
            return model.loss(images, labels, *model(images, labels)).item()

    before = loss()
    run = epochs(model, Pictures(split.images, labels, 1), 16, cpu)
    assert all(next(run) > 0 for _ in range(20))
    assert loss() < 0.8 * before


def test_it_is_timed_in_float32(small, cpu, monkeypatch):
    """On CUDA torch's own setting is tf32 in convolutions."""
    places, found = (torch.backends.cuda.matmul, torch.backends.cudnn.conv), []
    before = [place.fp32_precision for place in places]

    def watched(*_):
        while True:
            found.append([place.fp32_precision for place in places])
            yield 1.0

    monkeypatch.setattr("benchmarks.textbook.epochs", watched)
    run = usual(small(train_size=32), cpu)
    assert [run(), run()] == [1.0, 1.0]
    assert found == [["ieee", "ieee"]] * 2
    assert [place.fp32_precision for place in places] == before


def test_fields_that_it_takes_from_the_config_matter(small):
    sizes = {name: getattr(small(), name) for name in ("conv_channels", "primary_types", "class_dim")}
    count = sum(p.numel() for p in Textbook(small()).parameters())
    for name, value in sizes.items():
        assert sum(p.numel() for p in Textbook(small(**{name: value + 1})).parameters()) > count
    assert isinstance(small(), RunConfig)
