"""Confidence intervals of observed rates."""

from __future__ import annotations

from math import sqrt

_Z95 = 1.959963984540054


def wilson(count: int, of: int, z: float = _Z95) -> tuple[float, float] | None:
    """Wilson score interval of a rate (Wilson 1927), at 95% by default; None if `of` is 0.

    Raises:
        ValueError: `count` is negative or larger than `of`.
    """
    if not 0 <= count <= of:
        raise ValueError(f"{count} of {of} is not a rate")
    if not of:
        return None
    rate = count / of
    middle = (rate + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * sqrt(rate * (1 - rate) / of + z * z / (4 * of * of))
    # Rounding errors must not exclude the rate itself.
    return max(0.0, min(rate, middle - half)), min(1.0, max(rate, middle + half))
