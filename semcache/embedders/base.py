"""What turns texts into vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from semcache.types import Vector


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into vectors of length 1, so that an inner product is the cosine.

    - The same text gives the same vector, whatever other texts are embedded beside it.
    - May be called from many threads at once.
    - Raises `EmbedderError` when it cannot; never returns some of the rows.
    """

    @property
    def fingerprint(self) -> str:
        """Names model, weights and form. Equal fingerprints: vectors may be compared."""
        ...

    @property
    def dimension(self) -> int:
        """Length d of a vector."""
        ...

    @property
    def window(self) -> int | None:
        """The most tokens of a text that reach its vector; None: no limit known."""
        ...

    @property
    def local(self) -> bool:
        """It computes in this process, so that more calls at once do not make it faster."""
        ...

    def load(self) -> None:
        """Get ready to embed; may take seconds. Calling it again does nothing."""
        ...

    def count_tokens(self, text: str) -> int:
        """How many tokens of the window `text` takes, were the window endless."""
        ...

    def embed(self, texts: Sequence[str]) -> Vector:
        """Return float32[n, d], row i for texts[i], each of Euclidean length 1."""
        ...


class CheckedEmbedder:
    """An embedder of ours, which checks its own vectors: the pool need not check them again.

    Attributes:
        bounded_time: it cannot hang, so it needs no time limit and no thread of its own.
    """

    __slots__ = ()

    bounded_time: bool = False
