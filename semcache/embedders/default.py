"""The default embedder: all-MiniLM-L6-v2."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from semcache.embedders.base import CheckedEmbedder
from semcache.embedders.minilm import DIMENSION, WINDOW, Form, default_fingerprint
from semcache.errors import EmbedderError

if TYPE_CHECKING:
    from semcache.embedders.onnx import OnnxEmbedder
    from semcache.embedders.sentence_transformer import SentenceTransformerEmbedder
    from semcache.types import Vector

_RETRY_DELAY = 30.0
"""Seconds before loading is tried again after a failure."""


class DefaultEmbedder(CheckedEmbedder):
    """all-MiniLM-L6-v2 in int8, which is shipped with the package, or in another form.

    The model is loaded on first use.

    Args:
        form: the form that made the stored vectors; None means "int8". The first use of
            "float32" on a machine exports the original weights, which takes a few seconds;
            "torch" is the original model, run by sentence-transformers.
    """

    bounded_time = True

    local = True
    dimension = DIMENSION
    window: int | None = WINDOW

    def __init__(self, form: Form | None = None) -> None:
        self._form: Form = form or "int8"
        self._lock = threading.Lock()
        self._failure: tuple[EmbedderError | None, float] = (None, 0.0)
        self._inner: OnnxEmbedder | SentenceTransformerEmbedder | None = None

    @property
    def fingerprint(self) -> str:
        """Identifies the model and its form, without loading it."""
        return default_fingerprint(self._form)

    def load(self) -> None:
        self._embedder().load()

    def count_tokens(self, text: str) -> int:
        return self._embedder().count_tokens(text)

    def embed(self, texts: Sequence[str]) -> Vector:
        return self._embedder().embed(texts)

    def _embedder(self) -> OnnxEmbedder | SentenceTransformerEmbedder:
        inner = self._inner
        if inner is None:
            with self._lock:
                inner = self._inner
                if inner is None:
                    inner = self._inner = self._create_or_fail_fast()
        return inner

    def _create_or_fail_fast(self) -> OnnxEmbedder | SentenceTransformerEmbedder:
        """Create the embedder; after a failure, fail at once until the retry delay is over."""
        last_error, retry_at = self._failure
        if last_error is not None and time.monotonic() < retry_at:
            raise EmbedderError(str(last_error))
        try:
            return self._new_embedder()
        except EmbedderError as error:
            self._failure = (error, time.monotonic() + _RETRY_DELAY)
            raise

    def _new_embedder(self) -> OnnxEmbedder | SentenceTransformerEmbedder:
        # Imported here: a program with only exact hits never loads these.
        if self._form == "torch":
            return _original_embedder()
        from semcache.embedders.onnx import OnnxEmbedder, shipped_embedder

        if self._form == "int8":
            return shipped_embedder()
        from semcache.embedders.export import export_float32

        return OnnxEmbedder(export_float32())


def _original_embedder() -> SentenceTransformerEmbedder:
    """The published model, run by PyTorch.

    Raises:
        EmbedderError: sentence-transformers is not installed.
    """
    from semcache.embedders import sentence_transformer
    from semcache.embedders.export import locate_original

    if not sentence_transformer.is_installed():
        raise EmbedderError(
            "The vectors of this cache were made by the original model, which needs "
            f"sentence-transformers: {sentence_transformer.INSTALL}. Alternatively, run "
            "`semcache reembed` to replace them with vectors of the model shipped with semcache."
        )
    return sentence_transformer.SentenceTransformerEmbedder(locate_original())
