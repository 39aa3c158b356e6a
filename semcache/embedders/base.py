"""The embedder protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from semcache.types import Vector


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into vectors of length 1, so that an inner product is the cosine.

    - A text gets the same vector whatever other texts are in the batch.
    - It may be called from many threads at once.
    - It raises `EmbedderError` on failure, and never returns only some of the rows.
    """

    @property
    def fingerprint(self) -> str:
        """Identifies model, weights and form; vectors are comparable only if it is equal."""
        ...

    @property
    def dimension(self) -> int:
        """Length d of the vectors."""
        ...

    @property
    def window(self) -> int | None:
        """Maximum number of tokens that are embedded; None means no known limit."""
        ...

    @property
    def local(self) -> bool:
        """Whether it computes in this process, so that concurrent calls do not make it faster."""
        ...

    def load(self) -> None:
        """Load the model, which may take seconds; further calls do nothing."""
        ...

    def count_tokens(self, text: str) -> int:
        """Number of tokens in `text`, without truncation to the window."""
        ...

    def embed(self, texts: Sequence[str]) -> Vector:
        """Return float32[n, d], row i for texts[i], each of Euclidean length 1."""
        ...


class CheckedEmbedder:
    """Base class of the built-in embedders, whose vectors need no further check by the pool.

    Attributes:
        bounded_time: whether it cannot hang, and so needs no time limit and no thread of its own.
    """

    __slots__ = ()

    bounded_time: bool = False
