"""Vectors encoded as bytes, in one of three forms; a blob's length tells its form.

float32: 4 d bytes. float16: 2 d bytes. int8: a float32 scale, then the d numbers divided by
it, padded with a zero byte to an odd length, since the other forms have even lengths. Vectors
have unit length, so float16 changes a cosine by less than 0.001 and int8 by a few thousandths.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Literal, TypeVar

if TYPE_CHECKING:
    from semcache.types import Vector

T = TypeVar("T")

# numpy is imported inside the functions: a program that handles no vectors need not load it.

Form = Literal["float32", "float16", "int8"]
FORMS: tuple[Form, ...] = ("float32", "float16", "int8")

_SCALE_BYTES = 4


def encoded(vector: Vector, form: Form) -> bytes:
    """Encode float32[d] as bytes of this form."""
    if form == "float32":
        return bytes(vector.astype("<f4", copy=False))
    if form == "float16":
        return bytes(vector.astype("<f2"))
    import numpy as np

    scale = np.array([max(float(np.abs(vector).max()) / 127, 1e-12)], "<f4")
    raw = bytes(scale) + bytes(np.rint(vector / scale).astype(np.int8))
    return raw if len(raw) % 2 else raw + b"\0"


def lengths(dimension: int) -> tuple[int, int, int]:
    """Length in bytes of an encoded vector of this dimension, in the order of `FORMS`."""
    return 4 * dimension, 2 * dimension, (dimension + _SCALE_BYTES) | 1


def is_vector(stored: object, dimension: int) -> bool:
    """Whether a stored value can be a vector of this dimension: a blob of the right length."""
    return isinstance(stored, bytes) and len(stored) in lengths(dimension)


def decode_rows(
    rows: Sequence[tuple[int, bytes, bytes]], dimension: int
) -> tuple[list[int], list[bytes], Vector]:
    """Turn (id, scope, encoded vector) rows into (ids, scopes, float32[n, d]).

    Rows with a malformed vector or scope are skipped: no search can find them.
    """
    valid = [row for row in rows if is_vector(row[2], dimension) and isinstance(row[1], bytes)]
    vectors = decoded([row[2] for row in valid], dimension)
    return [row[0] for row in valid], [row[1] for row in valid], vectors


def batched(rows: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield the rows in lists of `size`; the last may be shorter."""
    iterator = iter(rows)
    while batch := list(islice(iterator, size)):
        yield batch


def cosine(blob: bytes, vector: Vector) -> float | None:
    """Cosine of a stored vector and float32[d], both of unit length; None if it is malformed."""
    import numpy as np

    if isinstance(blob, bytes) and len(blob) == 4 * len(vector):  # float32, the default
        return float(np.frombuffer(blob, "<f4").dot(vector))
    if not is_vector(blob, len(vector)):
        return None
    return float(decoded([blob], len(vector))[0].dot(vector))


def decoded(blobs: Sequence[bytes], dimension: int) -> Vector:
    """Decode blobs, of one form or several, to float32[n, d].

    Raises:
        ValueError: the length of a blob fits no form.
    """
    import numpy as np

    if not blobs:
        return np.empty((0, dimension), np.float32)
    blob_lengths = set(map(len, blobs))
    if len(blob_lengths) > 1:
        return np.stack([decoded([blob], dimension)[0] for blob in blobs])
    length = blob_lengths.pop()
    raw = np.frombuffer(b"".join(blobs), np.uint8).reshape(len(blobs), length)
    float32_length, float16_length, int8_length = lengths(dimension)
    if length == float32_length:
        return np.ascontiguousarray(raw).view("<f4").astype(np.float32, copy=False)
    if length == float16_length:
        return np.ascontiguousarray(raw).view("<f2").astype(np.float32)
    if length == int8_length:
        scales = np.ascontiguousarray(raw[:, :_SCALE_BYTES]).view("<f4").astype(np.float32)
        numbers = raw[:, _SCALE_BYTES : _SCALE_BYTES + dimension].view(np.int8).astype(np.float32)
        return numbers * scales
    raise ValueError(f"a blob of {length} bytes cannot be a vector of dimension {dimension}")
