"""Checks and normalises the vectors of embedders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from semcache.errors import EmbedderError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from semcache.types import Vector

_TOO_SHORT = 1e-12
_UNIT = 1e-6
"""Squared lengths this close to 1 differ from it only by float32 rounding."""


def unit_rows(raw: Any, rows: int, dimension: int | None, source: str) -> Vector:
    """Return `raw` as float32[rows, d] with rows of Euclidean length 1.

    Args:
        dimension: the expected d; None accepts any.
        source: name of the embedder, for error messages.

    Raises:
        EmbedderError: the shape is wrong, or a row is zero or not finite.
    """
    if rows == 1 and isinstance(raw, np.ndarray) and _is_unit(raw, dimension):
        return raw  # the usual case; NumPy calls are slow right after an embedding
    try:
        vectors = np.ascontiguousarray(raw, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise EmbedderError(f"{source} did not return an array of numbers: {error}") from None
    if (
        vectors.ndim != 2
        or len(vectors) != rows
        or vectors.shape[1] != (dimension or vectors.shape[1])
    ):
        expected = f"({rows}, {dimension or 'd'})"
        raise EmbedderError(
            f"{source} returned an array of shape {vectors.shape}, expected {expected}."
        )
    if rows and not vectors.shape[1]:
        raise EmbedderError(f"{source} returned empty vectors.")
    squares = np.einsum("ij,ij->i", vectors, vectors)
    if (np.abs(squares - 1) < _UNIT).all():  # false for NaN
        return vectors
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    bad = ~np.isfinite(lengths) | (lengths < _TOO_SHORT)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        what = "zero" if np.isfinite(lengths[row]) else "not finite"
        raise EmbedderError(
            f"{source} returned a vector that is {what} (row {row} of {rows}). Such a vector has "
            "no direction to compare; it is not used."
        )
    unit: Vector = (vectors / lengths[:, None]).astype(np.float32, copy=False)
    return unit


def _is_unit(raw: NDArray[Any], dimension: int | None) -> bool:
    """Whether `raw` is float32[1, d] with length 1."""
    if (
        raw.dtype.char != "f"
        or not raw.dtype.isnative
        or raw.shape != (1, dimension)
        or not raw.flags.c_contiguous
    ):
        return False
    row = raw[0]
    return abs(float(row.dot(row)) - 1) < _UNIT  # false for NaN
