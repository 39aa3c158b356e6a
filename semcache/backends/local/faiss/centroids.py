"""What a scope's vectors lie around: how many inverted lists, and by which rows they are placed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import faiss
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from semcache.backends.local.faiss.quantizer import Part, Quantizer
    from semcache.types import Vector

REGROW = 4
"""Centroids are placed anew when there are this many times the rows they were placed for."""
_TRAINING_POINTS = 32
"""Rows for each list to place its centroid by."""
_SHORT, _FEW = 256, 16
"""Rows that a list takes no time for beside its own; lists so few that their own is nothing."""
_ROUNDS, _SEED = 6, 1234
"""Of k-means; seeded, so that equal data make equal lists."""


@dataclass(frozen=True, slots=True, eq=False)
class CoarseQuantizer:
    """Centroids, one for each list, and the form in which rows are compared.

    Attributes:
        centroids: float32[l, d] of length 1; none where there is but one list.
        part: the same as codes, uint8[l, d], to be looked through.
        codec: makes codes.
        edges: float32[d], what each number's sign is counted from (`Quantizer.edges`).
    """

    centroids: NDArray[np.float32]
    part: Part
    quantizer: Quantizer
    edges: NDArray[np.float32]

    @property
    def lists(self) -> int:
        return max(len(self.centroids), 1)

    def sketch(self, vectors: Vector) -> NDArray[np.uint8]:
        """What of float32[n, d] is looked through: their signs, uint8[n, d / 8], or their codes."""
        if self.quantizer.signed:
            return self.quantizer.signs_of(vectors, self.edges)
        return self.quantizer.encode(vectors)

    def equals(self, other: CoarseQuantizer) -> bool:
        """Whether rows placed by one are placed by the other."""
        return (
            self.quantizer == other.quantizer
            and np.array_equal(self.edges, other.edges)
            and np.array_equal(self.centroids, other.centroids)
        )


def lists_for(rows: int) -> int:
    """About sqrt(n), a power of two.

    Fewer where these would be short: each list takes some time, however few rows it has.
    """
    worth_it = max(rows / _SHORT, _FEW)
    return int(2 ** round(math.log2(min(math.sqrt(rows), worth_it))))


def sample_of(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those of the rows that centroids are placed by, in order."""
    many = lists_for(len(rows)) * _TRAINING_POINTS
    return np.sort(np.random.default_rng(_SEED).permutation(rows)[:many])


def placed(sample: Vector, rows: int) -> NDArray[np.float32]:
    """float32[l, d]: centroids by k-means, for so many rows of which this is a sample."""
    means = faiss.Kmeans(
        sample.shape[1], lists_for(rows), niter=_ROUNDS, seed=_SEED, spherical=True,
        max_points_per_centroid=_TRAINING_POINTS, min_points_per_centroid=1,
    )  # fmt: skip
    means.train(sample)
    assert means.centroids is not None  # it has been trained
    return means.centroids


def assigned(vectors: Vector, centroids: NDArray[np.float32]) -> NDArray[np.int64]:
    """int64[n]: the nearest centroid of each."""
    found: NDArray[np.int64]
    found = faiss.knn(vectors, centroids, 1, metric=faiss.METRIC_INNER_PRODUCT)[1][:, 0]
    return found


def middle_of(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8[d] of uint8[n, d]: where they lie on average."""
    if not len(codes):
        return np.zeros(codes.shape[1], np.uint8)
    mean: NDArray[np.uint8] = np.ceil(codes.mean(axis=0)).astype(np.uint8)
    return mean
