"""What the other values are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

    Vector: TypeAlias = NDArray[float32]
    """One embedding: float32[d], of length 1."""

JSON: TypeAlias = Any
"""None, bool, int, float, str, list or dict of the same."""


Tier: TypeAlias = Literal["exact", "semantic"]


Source: TypeAlias = Literal["exact", "semantic", "shared"]
"""A tier, or another caller's call for the same that was under way."""
