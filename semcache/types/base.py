"""Basic types that the other values are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

    Vector: TypeAlias = NDArray[float32]
    """An embedding: float32[d], normalised to length 1."""

JSON: TypeAlias = Any
"""None, bool, int, float, str, or a list or dict of these."""


Tier: TypeAlias = Literal["exact", "semantic"]


Source: TypeAlias = Literal["exact", "semantic", "shared"]
"""The tier that served an answer; "shared" if it came from another caller's call in flight."""
