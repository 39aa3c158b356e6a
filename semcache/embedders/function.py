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
        name: names the model; stored with the cache as its fingerprint.
        dimension: d.
        window: the most tokens of a text that reach its vector; None: no limit.
        count_tokens: how many tokens a text has; by default its words are counted.
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
        """Nothing to load."""

    def count_tokens(self, text: str) -> int:
        return self._count(text)

    def embed(self, texts: Sequence[str]) -> Vector:
        try:
            raw = self._function(list(texts))
        except Exception as error:
            raise EmbedderError(f"{self.fingerprint} failed: {error!r}") from error
        return unit_rows(raw, len(texts), self.dimension, self.fingerprint)
