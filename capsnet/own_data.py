"""Data sets of your own: images in a folder for each class, or arrays in one file.

``python -m capsnet.own_data data/mine`` prints the two lines that make a data set of the folder ``data/mine``: one for the end
of this file, which names it, and one for ``DATASETS`` in :mod:`capsnet.registry`. ``docs/extend.md`` does it step by step.
"""

import builtins
import hashlib
import json
import keyword
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import tyro

from capsnet import cli, terminal
from capsnet.datasets import ELSEWHERE, Arrays
from capsnet.errors import InputError
from capsnet.own_files import ARRAYS, INTO, class_names, read_folder, read_npz
from capsnet.registry import DATASETS, DatasetFacts


def image_folder(name: str, folder: Path) -> tuple[Arrays, Arrays]:
    """``NAME/train/CLASS/*.png`` and ``NAME/test/CLASS/*.png`` (or .jpg), read as grey or RGB as the registry's shape says.

    Classes are counted in the order of their names, and images of a class stand in that of their files' names.

    Args:
        name: of the data set in the registry, and of its folder.
        folder: that holds the data sets.

    Raises:
        InputError: a folder is missing or empty, a file is no image, images differ in size, or classes in train and test; or
            the registry says otherwise.
    """
    place = folder / name
    if not place.is_dir():
        raise InputError(f"there is no folder {place.resolve()}; put images into its {INTO}, {ELSEWHERE}")
    return _as_registered(name, read_folder(place, DATASETS[name].shape[0]), place, class_names(place))


def npz(name: str, folder: Path) -> tuple[Arrays, Arrays]:
    """``NAME.npz`` with ``train_images``, ``train_labels``, ``test_images`` and ``test_labels``.

    Images are bytes, [n, height, width] or [n, height, width, channels]; labels are whole numbers from 0, [n].

    Args:
        name: of the data set in the registry, and of its file.
        folder: that holds the data sets.

    Raises:
        InputError: the file or an array is missing, or of another form; a class has no image; or the registry says otherwise.
    """
    path = folder / f"{name}.npz"
    if not path.is_file():
        raise InputError(f"there is no file {path.resolve()}; save {', '.join(ARRAYS)} in it with numpy.savez, {ELSEWHERE}")
    return _as_registered(name, read_npz(path), path)


def facts_of(parts: tuple[Arrays, Arrays], loader: str = "", digest: str = "", names: tuple[str, ...] = ()) -> DatasetFacts:
    """What the registry has to know of training and test arrays, and of their classes."""
    (images, labels), (test, _) = parts
    count, height, width = images.shape[:3]
    shape = (images.shape[3] if images.ndim == 4 else 1, height, width)
    return DatasetFacts(shape, int(labels.max()) + 1, count, len(test), loader, digest, names=names)


def _as_registered(name: str, parts: tuple[Arrays, Arrays], place: Path, names: tuple[str, ...] = ()) -> tuple[Arrays, Arrays]:
    """The arrays, if the registry says the same of them. Whoever reads a data set looks at its digest, too."""
    there, told = vars(facts_of(parts, names=names)), vars(DATASETS[name])
    keys = ["shape", "classes", "training_images", "test_images"]
    keys += ["names"] if names and told["names"] else []  # which it needn't tell
    if differ := [f"{key} {there[key]}, not {told[key]}" for key in keys if there[key] != told[key]]:
        raise InputError(
            f"{place.resolve()} is not what the registry says of {name}: {'; '.join(differ)}; "
            f"python -m capsnet.own_data {place} prints the line that fits it"
        )
    return parts


# ---- the lines of a data set


@dataclass(frozen=True)
class Command:
    """Print the two lines that make a data set of your files: for the end of capsnet/own_data.py, and for capsnet/registry.py.

    Example: python -m capsnet.own_data data/mine
    """

    place: tyro.conf.Positional[Path]
    """a folder with train/CLASS/*.png and test/CLASS/*.png, or an .npz file"""


def lines(place: Path) -> tuple[str, str]:
    """What names a loader of these files in this module, and what ``DATASETS`` has to say of them.

    Raises:
        InputError: they are not as :func:`image_folder` or :func:`npz` reads them, or their name is another data set's.
    """
    from capsnet.verified import add_to_digest

    if not place.exists():
        raise InputError(f"there is no {place.resolve()}; it must be a folder with {INTO}, or an .npz file")
    if place.suffix != ".npz" and not place.is_dir():
        raise InputError(f"{place.resolve()} is neither a folder with {INTO} nor an .npz file")
    in_file = place.suffix == ".npz"
    name, kind = (place.stem, "npz") if in_file else (place.resolve().name, "image_folder")
    if (known := DATASETS.get(name)) and not known.loader.startswith("capsnet.own_data:"):
        raise InputError(f"the name {name} is taken by a data set of capsnet/registry.py; rename {place.resolve()}")
    parts, digest = read_npz(place) if in_file else read_folder(place), hashlib.sha256()
    if parts[0][1].max() < 1:
        raise InputError(f"{place.resolve()} has one class: there is nothing to tell apart")
    for arrays in parts:
        add_to_digest(digest, arrays)
    loader = _loader(name)
    facts = facts_of(parts, f"capsnet.own_data:{loader}", digest.hexdigest(), () if in_file else class_names(place))
    numbers = f"{facts.shape}, {facts.classes}, {facts.training_images:_}, {facts.test_images:_}"
    names = f", names=({', '.join(json.dumps(each, ensure_ascii=False) for each in facts.names)},)" if facts.names else ""
    quoted = json.dumps(name, ensure_ascii=False)
    registered = f'{quoted}: DatasetFacts({numbers}, "{facts.loader}", "{facts.digest}"{names}),'
    return f"{loader} = partial({kind}, {quoted})", registered


def _loader(name: str) -> str:
    """What this module calls the loader of a data set: a name that Python, the module and other data sets don't have."""
    word = re.sub(r"\W|^(?=\d)", "_", name, flags=re.ASCII)
    taken = {facts.loader for own, facts in DATASETS.items() if own != name}
    while (
        keyword.iskeyword(word)
        or hasattr(builtins, word)
        or f"capsnet.own_data:{word}" in taken
        or not isinstance(globals().get(word, partial(npz)), partial)
    ):
        word += "_"
    return word


def main() -> int:
    """Print the lines."""
    command: Command = cli.parse(Command, "python -m capsnet.own_data", None)
    for line in lines(command.place):
        terminal.say(line)
    return 0


# Your data sets, each of which a line of DATASETS in capsnet/registry.py names: mine = partial(image_folder, "mine")


if __name__ == "__main__":
    terminal.finish(main)
