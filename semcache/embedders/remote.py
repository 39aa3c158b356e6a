"""An OpenAI-compatible /embeddings endpoint as an embedder.

Source: OpenAI API reference, "Create embeddings".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import httpx

from semcache.credentials import HIDDEN, masked_text
from semcache.embedders.base import CheckedEmbedder
from semcache.embedders.vectors import unit_rows
from semcache.errors import EmbedderError

if TYPE_CHECKING:
    from semcache.types import Vector

_BATCH = 256


class RemoteEmbedder(CheckedEmbedder):
    """An `Embedder` that calls a server.

    It sends prompts to that server, so it is never chosen automatically.

    Args:
        model: the name of the embedding model on the server.
        base_url: the URL without "/embeddings", such as "http://localhost:11434/v1".
        api_key: sent as a bearer token; never shown in messages or in the repr.
        dimension: length of a vector.
        window: the model's limit in tokens, which are estimated as bytes / 3; None means no
            limit.
        timeout: timeout of one request, in seconds.
        client: an httpx.Client to use; by default a new one.
    """

    local = False

    def __init__(
        self,
        model: str,
        *,
        base_url: str,
        dimension: int,
        api_key: str | None = None,
        window: int | None = 8192,
        timeout: float = 10.0,
        client: httpx.Client | None = None,
    ) -> None:
        self._model = model
        self._url = base_url.rstrip("/") + "/embeddings"
        self._key = api_key or None
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._client = client or httpx.Client(timeout=timeout)
        self.fingerprint = f"remote/{model}/{dimension}"
        self.dimension = dimension
        self.window = window

    def load(self) -> None:
        """Does nothing: the model is on the server."""

    def count_tokens(self, text: str) -> int:
        return -(-len(text.encode()) // 3)

    def embed(self, texts: Sequence[str]) -> Vector:
        batches = [texts[i : i + _BATCH] for i in range(0, len(texts), _BATCH)]
        rows = [row for batch in batches for row in self._request(list(batch))]
        return unit_rows(rows, len(texts), self.dimension, self.fingerprint)

    def _request(self, texts: list[str]) -> list[list[float]]:
        try:
            response = self._client.post(
                self._url, json={"model": self._model, "input": texts}, headers=self._headers
            )
            if response.is_success:
                data: list[dict[str, Any]] = response.json()["data"]
                return [row["embedding"] for row in sorted(data, key=lambda row: row["index"])]
            problem = f"returned {response.status_code}: {response.text[:300]}"
        except httpx.HTTPError as error:
            problem = f"cannot be reached: {error!r}"
        except (KeyError, TypeError, ValueError) as error:
            problem = f"returned no embeddings: {error!r}"
        # Raised here, so that the error has no context, which may hold the key or a password.
        raise EmbedderError(f"{self._shown_url} {masked_text(self._without_key(problem))}")

    @property
    def _shown_url(self) -> str:
        return masked_text(self._url)

    def _without_key(self, text: str) -> str:
        """The text without the API key, which a server may repeat in its message."""
        return text if self._key is None else text.replace(self._key, HIDDEN)
