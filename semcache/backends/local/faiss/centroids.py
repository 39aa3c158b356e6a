"""The coarse quantizer of a scope: how many inverted lists it has, and their centroids."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import faiss
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from semcache.backends.local.faiss.quantizer import Block, Quantizer
    from semcache.types import Vector

RETRAIN_FACTOR = 4
"""Centroids are trained again when there are this many times the rows they were trained for."""
_SAMPLE_PER_LIST = 32
"""Training rows for each list's centroid."""
_SHORT_LIST, _FEW_LISTS = 256, 16
"""Lists have at least `_SHORT_LIST` rows on average, since every probe has a fixed cost. With at
most `_FEW_LISTS` lists, that cost is negligible and the lists may be shorter."""
_ITERATIONS, _SEED = 6, 1234
"""Parameters of k-means. The seed is fixed, so that equal data give equal lists."""


@dataclass(frozen=True, slots=True, eq=False)
class CoarseQuantizer:
    """The centroids of a scope's inverted lists, and how its rows are quantized.

    Attributes:
        centroids: float32[l, d], unit vectors; empty if the scope has only one list.
        part: the centroids as codes, uint8[l, d], ready to be scanned.
        quantizer: turns vectors into codes.
        thresholds: float32[d], the threshold of each dimension's sign bit (`Quantizer.thresholds`).
    """

    centroids: NDArray[np.float32]
    part: Block
    quantizer: Quantizer
    thresholds: NDArray[np.float32]

    @property
    def lists(self) -> int:
        return max(len(self.centroids), 1)

    def sketch(self, vectors: Vector) -> NDArray[np.uint8]:
        """The sketch of float32[n, d] that scans read: sign bits, uint8[n, d / 8], or codes."""
        if self.quantizer.has_sign_bits:
            return self.quantizer.sign_bits(vectors, self.thresholds)
        return self.quantizer.encode(vectors)

    def equals(self, other: CoarseQuantizer) -> bool:
        """Whether both assign rows to the same lists, with the same codes and sign bits."""
        return (
            self.quantizer == other.quantizer
            and np.array_equal(self.thresholds, other.thresholds)
            and np.array_equal(self.centroids, other.centroids)
        )


def lists_for(rows: int) -> int:
    """Number of lists for this many rows: about sqrt(rows), rounded to a power of two.

    Fewer if the lists would be short, since probing even a short list has a fixed cost.
    """
    most = max(rows / _SHORT_LIST, _FEW_LISTS)
    return int(2 ** round(math.log2(min(math.sqrt(rows), most))))


def sample_of(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """A random sample of these rows to train their centroids on, sorted."""
    count = lists_for(len(rows)) * _SAMPLE_PER_LIST
    return np.sort(np.random.default_rng(_SEED).permutation(rows)[:count])


def train_centroids(sample: Vector, rows: int) -> NDArray[np.float32]:
    """float32[l, d]: centroids for this many rows, trained by k-means on a sample of them."""
    means = faiss.Kmeans(
        sample.shape[1], lists_for(rows), niter=_ITERATIONS, seed=_SEED, spherical=True,
        max_points_per_centroid=_SAMPLE_PER_LIST, min_points_per_centroid=1,
    )  # fmt: skip
    means.train(sample)
    assert means.centroids is not None  # set by `train`
    return means.centroids


def nearest_centroids(vectors: Vector, centroids: NDArray[np.float32]) -> NDArray[np.int64]:
    """int64[n]: the nearest centroid of each vector."""
    nearest: NDArray[np.int64]
    nearest = faiss.knn(vectors, centroids, 1, metric=faiss.METRIC_INNER_PRODUCT)[1][:, 0]
    return nearest


def mean_code(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8[d] of uint8[n, d]: the mean code of each dimension, rounded up."""
    if not len(codes):
        return np.zeros(codes.shape[1], np.uint8)
    mean: NDArray[np.uint8] = np.ceil(codes.mean(axis=0)).astype(np.uint8)
    return mean
