"""Vectors in eight bits a number, and in one, and where they lie."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import faiss
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from semcache.types import Vector

MIDDLE = 127.5
"""The code of zero."""
_MARGIN, _DEVIATIONS = 1.05, 6.0
_CLIPPED = 1e-4
"""Share of new vectors' numbers outside the codec's range for which the range is widened."""
_SIGNS_FROM = 256
"""Numbers of a vector below which its signs tell too little."""


@dataclass(frozen=True, slots=True)
class Quantizer:
    """float32[n, d] to uint8[n, d] and back, from -scale to scale.

    One scale for all dimensions, so that distances between codes are distances between
    vectors, which FAISS computes in whole numbers.
    """

    scale: float
    dimension: int

    @classmethod
    def around(cls, vectors: Vector, other: Quantizer | None = None) -> Quantizer:
        """A codec for these vectors; `other` itself if they lie in its range."""
        sizes = np.abs(vectors)
        if other is not None:
            outside = np.count_nonzero(sizes > other.scale)
            if outside <= _CLIPPED * vectors.size:
                return other
        dimension = vectors.shape[1]
        # Vectors to come lie in the range too: few numbers are beyond so many deviations.
        scale = max(_MARGIN * float(sizes.max(initial=0.0)), _DEVIATIONS / math.sqrt(dimension))
        return cls(min(1.0, scale), dimension)

    @property
    def step(self) -> float:
        """What a code's last digit stands for."""
        return self.scale / MIDDLE

    @property
    def tolerance(self) -> float:
        """How far a cosine from codes may be off: seven deviations of its rounding."""
        return 2 * self.step

    def encode(self, vectors: Vector) -> NDArray[np.uint8]:
        numbers = vectors * (MIDDLE / self.scale) + (MIDDLE + 0.5)
        return np.clip(numbers, 0, 255, out=numbers).astype(np.uint8)

    def edges(self, codes: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The least numbers that have these codes."""
        return (codes.astype(np.float32) - (MIDDLE + 0.5)) * np.float32(self.step)

    @property
    def signed(self) -> bool:
        """Whether signs are kept too."""
        return self.dimension >= _SIGNS_FROM

    def signs_of(self, numbers: NDArray[Any], edges: NDArray[Any]) -> NDArray[np.uint8]:
        """uint8[n, d / 8] of [n, d], vectors or codes: a bit a number, whether it reaches its edge.

        uint8[n, 0] where signs are not kept.
        """
        if not self.signed:
            return np.empty((len(numbers), 0), np.uint8)
        return np.packbits(numbers >= edges, axis=-1)

    def decode(self, codes: NDArray[np.uint8]) -> Vector:
        vectors: Vector = ((codes.astype(np.float32) - MIDDLE) * self.step).astype(np.float32)
        return vectors


class Part(NamedTuple):
    """Rows that follow each other, as FAISS takes them.

    Attributes:
        brief: uint8[n, _], one row after the other; it keeps alive what `pointer` points at.
        pointer: to the first. Made once: making one takes as long as looking through a list.
        rows: n.
    """

    sketch: NDArray[np.uint8]
    pointer: Any
    rows: int

    @classmethod
    def of(cls, sketch: NDArray[np.uint8], rows: int | None = None) -> Part:
        """All of these rows, or the first so many."""
        return cls(sketch, faiss.swig_ptr(sketch), len(sketch) if rows is None else rows)
