"""What routing does in a trained network, as figure A.1 of the paper and beyond, and which of its capsules are dead."""

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from analysis.style import COLUMN, note, save, scale, style
from analysis.trained import Trained
from capsnet.data import Split
from capsnet.diagnostics import Diagnosis, diagnose
from capsnet.metrics import SILENT

MOST = 10_000  # test images, the first: MNIST's all; MultiMNIST's 100,000 pairs would take a CPU an hour
PASSES = 5  # followed at least where there is routing: the paper tells of the fifth
LETTERS = 18  # of a line that fits in a panel with nothing else in it
BLUE, ORANGE, GREEN, GREY = (sns.color_palette("colorblind")[i] for i in (0, 1, 2, 7))


def routing(trained: Trained, split: Split, folder: Path) -> list[Path]:
    """Entropy of the coupling and change of the logits, pass by pass, and the greatest length of every capsule; and as JSON.

    Of routings other than dynamic and uniform there are the lengths, of em and of random and static coupling the entropy, and a
    word in the other panel.

    Raises:
        InputError: the images are not those that the run was tested on.
    """
    trained.check(split)
    config = trained.config
    routed = config.routing == "dynamic" and config.routing_iterations > 1
    found = diagnose(trained.network, Split(split.images[:MOST], split.labels[:MOST]), PASSES if routed else 0)
    followed, name = len(found.entropy) > 0, config.variant("routing").name  # without its parameters, which the note has
    with style():
        figure = Figure(figsize=(COLUMN, 3.9 if followed else 2.4), layout="constrained")
        parts = figure.subfigures(1 + followed, 1, squeeze=False)[:, 0]
        said = [] if followed else [f"{name} routing is not followed"]
        if followed:
            _both(parts[0], found, name)
            said += ["above: routing of the last hidden layer's capsules to the class capsules"] * bool(config.hidden_capsules)
            said += ["hollow: passes that the network does not make"] * (len(found.entropy) > found.iterations)
        histogram, types = parts[-1].subplots(1, 2, sharey=True, width_ratios=[1, 2])
        _histogram(histogram, found)
        _by_type(types, found)
        note(figure, *said, _dead(found, len(split)), trained.title)
        paths = save(figure, folder / "routing")
    numbers = folder / "routing.json"
    numbers.write_text(json.dumps({"run_id": trained.run_id, **_numbers(found)}, indent=1) + "\n", encoding="utf-8")
    return [*paths, numbers]


def _both(figure: SubFigure, found: Diagnosis, routing: str) -> None:
    """Entropy and change, pass by pass."""
    entropy, change = figure.subplots(1, 2)
    _passes(entropy, found.relative_entropy.tolist(), found.iterations, "")
    entropy.set(xlabel="pass", ylabel=f"coupling entropy\n(share of log {found.outlets})")
    _passes(change, found.change.tolist(), found.iterations - 1, _why(routing))
    change.set(xlabel="after pass", ylabel="mean |change\nof the logits|")


def _why(routing: str) -> str:
    """Why there are no changes of logits, in lines that fit in a panel."""
    if routing == "em":
        why = "em routing has no logits"
    else:
        why = "one pass: the logits stay 0" if routing in ("dynamic", "uniform") else f"one pass: {routing} coupling"
    return textwrap.fill(why, LETTERS)


def _passes(panel: Axes, values: Sequence[float], own: int, why: str) -> None:
    """A point per pass: filled for those that the network makes itself; without any, why there is none."""
    if not values:
        panel.set(xticks=[], yticks=[])
        panel.text(0.5, 0.5, why, ha="center", va="center")
        return
    passes, values = range(1, len(values) + 1), [float(f"{value:.7g}") for value in values]  # beyond that it is rounding
    panel.plot(passes, values, color=BLUE, lw=0.8, ls=":")
    panel.plot(passes[:own], values[:own], "o-", color=BLUE, ms=4)
    panel.plot(passes[own:], values[own:], "o", color=BLUE, ms=4, mfc="white")
    scale([panel], values)
    panel.set_xlim(0.5, len(values) + 0.5)
    panel.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))


def _histogram(panel: Axes, found: Diagnosis) -> None:
    panel.hist(found.primary.flatten().numpy(), bins=40, range=(0, 1), orientation="horizontal", color=BLUE, lw=0)
    panel.set(xlabel="primary capsules", ylabel="greatest length", ylim=(0, 1.02))
    panel.axhline(SILENT, color=GREY, ls="--", lw=0.8)


def _by_type(panel: Axes, found: Diagnosis) -> None:
    """Of each type the range over its positions and their median, and of each hidden and each class capsule its one length."""
    primary = found.primary.numpy()
    types = np.arange(1, len(primary) + 1)
    panel.vlines(types, primary.min(axis=1), primary.max(axis=1), color=BLUE, lw=1)
    panel.plot(types, np.median(primary, axis=1), "o", color=BLUE, ms=2)
    last, middles = types[-1], []
    for longest, marker, color in (*((layer, "s", GREEN) for layer in found.hidden), (found.classes, "D", ORANGE)):
        places = last + 2 + np.arange(len(longest))
        panel.plot(places, longest.numpy(), marker, color=color, ms=2.5)
        last = places[-1]
        middles.append(places.mean())
    ticks = [(types.mean(), f"{len(types)} types"), (middles[-1], f"{len(found.classes)} classes")]
    if found.hidden:
        ticks.insert(1, (float(np.mean(middles[:-1])), " + ".join(str(len(layer)) for layer in found.hidden) + "\nhidden"))
    panel.axhline(SILENT, color=GREY, ls="--", lw=0.8)
    panel.set_xticks(*zip(*ticks, strict=True))
    panel.grid(visible=False, axis="x")


def _dead(found: Diagnosis, tested: int) -> str:
    first = "the first " if found.images < tested else ""
    dead, (types, positions) = found.dead_primary, found.primary.shape
    hidden = "".join(f"{n} of {len(layer)} hidden, " for n, layer in zip(found.dead_hidden, found.hidden, strict=True))
    return (
        f"dead, below the dashed line (not longer than {SILENT} on any of {first}{found.images:,} test images): {dead.sum()} "
        f"of {types * positions:,} primary capsules, {(dead == positions).sum()} of {types} types as a whole, {hidden}"
        f"{len(found.dead_classes)} of {len(found.classes)} classes"
    )


def _numbers(found: Diagnosis) -> dict[str, object]:
    return {
        "images": found.images,
        "routing_iterations": found.iterations,
        "coupling_entropy_nats": found.entropy.tolist(),
        "coupling_entropy_relative": found.relative_entropy.tolist(),
        "mean_logit_change": found.change.tolist(),
        "dead_threshold": SILENT,
        "capsules_per_type": found.primary.shape[1],
        "dead_by_type": found.dead_primary.tolist(),
        "dead_hidden": list(found.dead_hidden),
        "dead_classes": list(found.dead_classes),
        "greatest_length_of_hidden": [layer.tolist() for layer in found.hidden],
        "greatest_length_of_class": found.classes.tolist(),
        "mean_length_of_layer": list(found.mean_lengths),
    }
