"""How many inverted lists, and by which rows their centroids are placed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

REGROW = 4
"""Centroids are placed anew when there are this many times the rows they were placed for."""
TRAINING_POINTS = 32
"""Rows for each list to place its centroid by."""
ROUNDS, SEED = 6, 1234
"""Of k-means; seeded, so that equal data make equal lists."""


def lists_for(rows: int) -> int:
    """About 2 sqrt(n): a power of two."""
    return int(2 ** round(math.log2(2 * math.sqrt(rows))))


def sample_of(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those of the rows that centroids are placed by, in order."""
    many = lists_for(len(rows)) * TRAINING_POINTS
    return np.sort(np.random.default_rng(SEED).permutation(rows)[:many])
