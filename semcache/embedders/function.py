"""Any callable as an embedder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from semcache.embedders.base import CheckedEmbedder
from semcache.embedders.vectors import unit_rows
from semcache.errors import EmbedderError

if TYPE_CHECKING:
    from semcache.types import Vector


class FunctionEmbedder(CheckedEmbedder):
    """An `Embedder` over a function from a list of texts to n vectors of length d.

    Args:
        function: `list[str]` -> array-like [n, d]; must be callable from many threads.
        name: name of the model; part of the fingerprint that is stored with the cache.
        dimension: length d of the vectors.
        window: maximum number of tokens that are embedded; None means no limit.
        count_tokens: returns the number of tokens in a text; by default the number of words.
    """

    local = False

    def __init__(
        self,
        function: Callable[[list[str]], Any],
        *,
        name: str,
        dimension: int,
        window: int | None = None,
        count_tokens: Callable[[str], int] | None = None,
    ) -> None:
        self._function = function
        self._count = count_tokens or (lambda text: len(text.split()))
        self.fingerprint = f"function/{name}/{dimension}"
        self.dimension = dimension
        self.window = window

    def load(self) -> None:
        """Does nothing: the function needs no loading."""

    def count_tokens(self, text: str) -> int:
        return self._count(text)

    def embed(self, texts: Sequence[str]) -> Vector:
        try:
            raw = self._function(list(texts))
        except Exception as error:
            raise EmbedderError(f"{self.fingerprint} failed: {error!r}") from error
        return unit_rows(raw, len(texts), self.dimension, self.fingerprint)
