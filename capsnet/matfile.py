"""How large a field of a struct in a file of MATLAB's is, without reading it: scipy tells it of whole variables only.

The format is that of MathWorks' "MAT-File Format", chapter 1, level 5: elements behind a tag of type and length, a variable
often compressed as a whole.
"""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from struct import unpack
from typing import BinaryIO

MATRIX, COMPRESSED = 14, 15  # types of elements
STRUCT = 2  # class of a matrix
PIECE = 2**20  # bytes that are unpacked at once

Take = Callable[[int], bytes]
"""The next so many bytes."""


def field_shape(path: Path, variable: str, field: str) -> tuple[int, ...] | None:
    """Of the first element of the struct; None if there is none, or the file can't be made out."""
    try:
        with path.open("rb") as file:
            order = "<" if file.read(128)[126:] == b"IM" else ">"
            while tag := file.read(8):
                kind, length = unpack(f"{order}2I", tag)
                after, take = file.tell() + length, _inflated(file) if kind == COMPRESSED else file.read
                if kind == COMPRESSED:
                    kind, _ = unpack(f"{order}2I", take(8))
                if kind == MATRIX and (found := _field(take, order, variable, field)):
                    return found
                file.seek(after)
    except (OSError, EOFError, ValueError, struct.error, zlib.error):
        pass
    return None


def _field(take: Take, order: str, variable: str, field: str) -> tuple[int, ...] | None:
    """Of a matrix whose tag is read."""
    flags, _, name = (_element(take, order) for _ in range(3))
    if name != variable.encode() or unpack(f"{order}I", flags[:4])[0] & 255 != STRUCT:
        return None
    (width,) = unpack(f"{order}i", _element(take, order))
    names = _element(take, order)
    for start in range(0, len(names), width):
        _, length = unpack(f"{order}2I", take(8))
        if not length:  # an empty field is a tag alone
            continue
        _, dims = (_element(take, order) for _ in range(2))
        if names[start : start + width].split(b"\0")[0] == field.encode():
            return unpack(f"{order}{len(dims) // 4}i", dims)
        left = length - 16 - 8 - _filled(len(dims))  # behind the flags and the shape, each with its tag
        while left > 0:
            left -= len(take(min(PIECE, left))) or left
    return None


def _element(take: Take, order: str) -> bytes:
    """The data of one; up to four bytes of them stand in the tag itself."""
    tag = take(8)
    kind, length = unpack(f"{order}2I", tag)
    return tag[4 : 4 + (kind >> 16)] if kind >> 16 else take(_filled(length))[:length]


def _filled(length: int) -> int:
    """Elements end at multiples of 8 bytes."""
    return -(-length // 8) * 8


def _inflated(file: BinaryIO) -> Take:
    inflate, held = zlib.decompressobj(), bytearray()

    def take(count: int) -> bytes:
        while len(held) < count:
            if not (packed := inflate.unconsumed_tail or file.read(2**16)):
                raise EOFError
            held.extend(inflate.decompress(packed, PIECE))
        taken = bytes(held[:count])
        del held[:count]
        return taken

    return take
