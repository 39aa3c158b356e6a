"""The embedder that a cache uses when it is given none: all-MiniLM-L6-v2."""

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

_REST = 30.0
"""Seconds before a model that could not be made ready is tried again."""


class DefaultEmbedder(CheckedEmbedder):
    """all-MiniLM-L6-v2 in int8, which comes with the package, or in another form.

    Nothing is loaded before it is needed.

    Args:
        form: the form that stored vectors are in; None: int8. The first use of "float32" on
            a machine exports the original weights, which takes a few seconds; "torch" is the
            original itself, run by sentence-transformers.
    """

    bounded_time = True

    local = True
    dimension = DIMENSION
    window: int | None = WINDOW

    def __init__(self, form: Form | None = None) -> None:
        self._form: Form = form or "int8"
        self._lock = threading.Lock()
        self._failed: tuple[EmbedderError | None, float] = (None, 0.0)
        self._inner: OnnxEmbedder | SentenceTransformerEmbedder | None = None

    @property
    def fingerprint(self) -> str:
        """Known without loading the model."""
        return default_fingerprint(self._form)

    def load(self) -> None:
        self._ready().load()

    def count_tokens(self, text: str) -> int:
        return self._ready().count_tokens(text)

    def embed(self, texts: Sequence[str]) -> Vector:
        return self._ready().embed(texts)

    def _ready(self) -> OnnxEmbedder | SentenceTransformerEmbedder:
        inner = self._inner
        if inner is None:
            with self._lock:
                inner = self._inner
                if inner is None:
                    inner = self._inner = self._made()
        return inner

    def _made(self) -> OnnxEmbedder | SentenceTransformerEmbedder:
        """Make the embedder; a failure is remembered for a while, not repeated by every call."""
        failed, until = self._failed
        if failed is not None and time.monotonic() < until:
            raise EmbedderError(str(failed))
        try:
            return self._make()
        except EmbedderError as error:
            self._failed = (error, time.monotonic() + _REST)
            raise

    def _make(self) -> OnnxEmbedder | SentenceTransformerEmbedder:
        # Imported here: a program that only repeats itself never loads them.
        if self._form == "torch":
            return _original()
        from semcache.embedders.onnx import OnnxEmbedder, shipped_embedder

        if self._form == "int8":
            return shipped_embedder()
        from semcache.embedders.export import export_float32

        return OnnxEmbedder(export_float32())


def _original() -> SentenceTransformerEmbedder:
    """The model as it was published, run by PyTorch.

    Raises:
        EmbedderError: sentence-transformers is not installed.
    """
    from semcache.embedders import sentence_transformer
    from semcache.embedders.export import locate_original

    if not sentence_transformer.is_installed():
        raise EmbedderError(
            "The vectors of this cache were made by the original model, which needs "
            f"sentence-transformers: {sentence_transformer.INSTALL}. Or `semcache reembed` makes "
            "them anew with the model that comes with semcache."
        )
    return sentence_transformer.SentenceTransformerEmbedder(locate_original())
