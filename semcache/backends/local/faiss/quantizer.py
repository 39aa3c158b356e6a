"""The scalar quantizer (8 bits per dimension), sign bits (1 bit), and blocks of rows to scan."""

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
"""The scale is `_MARGIN` times the largest component, and at least `_DEVIATIONS` standard
deviations of the components."""
_CLIPPED = 1e-4
"""The scale is widened if more than this share of new vectors' components lies outside it."""
_SIGNS_FROM = 256
"""Smallest dimension with sign bits: fewer bits rank rows too poorly."""


@dataclass(frozen=True, slots=True)
class Quantizer:
    """A uniform scalar quantizer: float32[n, d] in -scale to scale, to uint8[n, d] and back.

    All dimensions share one scale, so that distances between codes are proportional to
    distances between vectors, and FAISS can compute them in integers.
    """

    scale: float
    dimension: int

    @classmethod
    def around(cls, vectors: Vector, other: Quantizer | None = None) -> Quantizer:
        """A quantizer for these vectors; `other` itself if they lie in its range."""
        sizes = np.abs(vectors)
        if other is not None:
            outside = np.count_nonzero(sizes > other.scale)
            if outside <= _CLIPPED * vectors.size:
                return other
        dimension = vectors.shape[1]
        # Leave room for vectors to come: few components exceed this many standard deviations.
        scale = max(_MARGIN * float(sizes.max(initial=0.0)), _DEVIATIONS / math.sqrt(dimension))
        return cls(min(1.0, scale), dimension)

    @property
    def step(self) -> float:
        """The difference between the values of adjacent codes."""
        return self.scale / MIDDLE

    @property
    def tolerance(self) -> float:
        """Error bound of a cosine from codes: seven standard deviations of the rounding error."""
        return 2 * self.step

    def encode(self, vectors: Vector) -> NDArray[np.uint8]:
        numbers = vectors * (MIDDLE / self.scale) + (MIDDLE + 0.5)
        return np.clip(numbers, 0, 255, out=numbers).astype(np.uint8)

    def thresholds(self, codes: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The smallest numbers that have these codes."""
        return (codes.astype(np.float32) - (MIDDLE + 0.5)) * np.float32(self.step)

    @property
    def has_sign_bits(self) -> bool:
        """Whether rows have sign bits as well as codes."""
        return self.dimension >= _SIGNS_FROM

    def sign_bits(self, numbers: NDArray[Any], thresholds: NDArray[Any]) -> NDArray[np.uint8]:
        """Sign bits, uint8[n, d / 8]: whether each of [n, d] numbers reaches its threshold.

        uint8[n, 0] if the dimension is too small for sign bits.
        """
        if not self.has_sign_bits:
            return np.empty((len(numbers), 0), np.uint8)
        return np.packbits(numbers >= thresholds, axis=-1)

    def decode(self, codes: NDArray[np.uint8]) -> Vector:
        vectors: Vector = ((codes.astype(np.float32) - MIDDLE) * self.step).astype(np.float32)
        return vectors


class Block(NamedTuple):
    """A contiguous block of rows, in the form in which FAISS scans it.

    Attributes:
        sketch: uint8[n, _], sign bits or codes, row by row; owns the memory of `pointer`.
        pointer: to the first row; made once, since making it takes as long as scanning a list.
        rows: the number of rows to scan, n or fewer.
    """

    sketch: NDArray[np.uint8]
    pointer: Any
    rows: int

    @classmethod
    def of(cls, sketch: NDArray[np.uint8], rows: int | None = None) -> Block:
        """A block of all these rows, or of the first `rows`."""
        return cls(sketch, faiss.swig_ptr(sketch), len(sketch) if rows is None else rows)
