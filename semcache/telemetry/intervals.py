"""How sure a counted rate is."""

from __future__ import annotations

from math import sqrt

_Z95 = 1.959963984540054


def wilson(count: int, of: int, z: float = _Z95) -> tuple[float, float] | None:
    """Wilson's interval of a rate (Wilson 1927), by default at 95%; None where nothing was counted.

    Raises:
        ValueError: more were counted than there are.
    """
    if not 0 <= count <= of:
        raise ValueError(f"{count} of {of}")
    if not of:
        return None
    rate = count / of
    middle = (rate + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * sqrt(rate * (1 - rate) / of + z * z / (4 * of * of))
    # Rounding must not put the rate outside.
    return max(0.0, min(rate, middle - half)), min(1.0, max(rate, middle + half))
