"""Vectors as bytes: the form is told by the length.

float32: 4 d bytes. float16: 2 d bytes. int8: a float32 scale, the d numbers divided by it, and
a byte 0 where the length would be even, since the others' are. Vectors have length 1, so that
float16 moves a cosine by less than 0.001 and int8 by a few thousandths.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Literal, TypeVar

if TYPE_CHECKING:
    from semcache.types import Vector

T = TypeVar("T")

# numpy is imported where vectors are: a program may have none.

Form = Literal["float32", "float16", "int8"]
FORMS: tuple[Form, ...] = ("float32", "float16", "int8")

_SCALE = 4


def encoded(vector: Vector, form: Form) -> bytes:
    """float32[d] as bytes of this form."""
    if form == "float32":
        return bytes(vector.astype("<f4", copy=False))
    if form == "float16":
        return bytes(vector.astype("<f2"))
    import numpy as np

    scale = np.array([max(float(np.abs(vector).max()) / 127, 1e-12)], "<f4")
    raw = bytes(scale) + bytes(np.rint(vector / scale).astype(np.int8))
    return raw if len(raw) % 2 else raw + b"\0"


def lengths(dimension: int) -> tuple[int, int, int]:
    """Bytes of a vector of so many numbers, in the order of `FORMS`."""
    return 4 * dimension, 2 * dimension, (dimension + _SCALE) | 1


def is_vector(length: int, dimension: int) -> bool:
    """Whether so many bytes can be a vector of so many numbers."""
    return length in lengths(dimension)


def unpacked(
    rows: Sequence[tuple[int, bytes, bytes]], dimension: int
) -> tuple[list[int], list[bytes], Vector]:
    """(ids, scopes, float32[n, d]) of rows of (id, scope, vector) whose vector is one.

    The others cannot be found by it.
    """
    found = [row for row in rows if is_vector(len(row[2]), dimension)]
    vectors = decoded([row[2] for row in found], dimension)
    return [row[0] for row in found], [row[1] for row in found], vectors


def batched(rows: Iterable[T], size: int) -> Iterator[list[T]]:
    """The rows in lists of so many, the last shorter."""
    left = iter(rows)
    while piece := list(islice(left, size)):
        yield piece


def cosine(blob: bytes, vector: Vector) -> float | None:
    """Of a stored vector and float32[d], both of length 1; None if it is no such vector."""
    import numpy as np

    if len(blob) == 4 * len(vector):  # as they are by default
        return float(np.frombuffer(blob, "<f4").dot(vector))
    if not is_vector(len(blob), len(vector)):
        return None
    return float(decoded([blob], len(vector))[0].dot(vector))


def decoded(blobs: Sequence[bytes], dimension: int) -> Vector:
    """float32[n, d] of blobs of any forms.

    Raises:
        ValueError: a blob has the length of no form.
    """
    import numpy as np

    there = set(map(len, blobs))
    if len(there) > 1:
        return np.stack([decoded([blob], dimension)[0] for blob in blobs])
    length = there.pop() if there else 4 * dimension
    raw = np.frombuffer(b"".join(blobs), np.uint8).reshape(len(blobs), length)
    single, half, eighth = lengths(dimension)
    if length == single:
        return np.ascontiguousarray(raw).view("<f4").astype(np.float32, copy=False)
    if length == half:
        return np.ascontiguousarray(raw).view("<f2").astype(np.float32)
    if length == eighth:
        scales = np.ascontiguousarray(raw[:, :_SCALE]).view("<f4").astype(np.float32)
        numbers = raw[:, _SCALE : _SCALE + dimension].view(np.int8).astype(np.float32)
        return numbers * scales
    raise ValueError(f"{length} bytes are no vector of {dimension} numbers")
