"""The embedder that a cache uses when it is given none: all-MiniLM-L6-v2, exported."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from semcache.embedders.base import CheckedEmbedder
from semcache.embedders.minilm import MODEL, Form, default_fingerprint, find_export, form_of
from semcache.errors import EmbedderError

if TYPE_CHECKING:
    from semcache.embedders.onnx import OnnxEmbedder
    from semcache.embedders.sentence_transformer import SentenceTransformerEmbedder
    from semcache.types import Vector

DIMENSION, WINDOW = 384, 256
_REST = 30.0
"""Seconds before a model that could not be made ready is tried again."""


class DefaultEmbedder(CheckedEmbedder):
    """all-MiniLM-L6-v2 in the fastest form that agrees with the original.

    Nothing is loaded before it is needed. The first use on a machine exports the model,
    which takes some seconds and PyTorch; `semcache warmup` does that ahead of time.

    Args:
        form: a form that stored vectors are in; None: whichever is fastest here.
    """

    bounded_time = True

    local = True
    dimension = DIMENSION
    window: int | None = WINDOW

    def __init__(self, form: Form | None = None) -> None:
        self._form = form
        self._lock = threading.Lock()
        self._failed: tuple[EmbedderError | None, float] = (None, 0.0)
        self._inner: OnnxEmbedder | SentenceTransformerEmbedder | None = None

    @property
    def fingerprint(self) -> str:
        """Known without loading where the form is; else the model is made ready."""
        form = self._form
        if form is None:
            self._ready()
            form = self._form
        assert form is not None
        return default_fingerprint(form)

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
            inner, self._form = self._make()
        except EmbedderError as error:
            self._failed = (error, time.monotonic() + _REST)
            raise
        return inner

    def _make(self) -> tuple[OnnxEmbedder | SentenceTransformerEmbedder, Form]:
        # Imported here: a program that only repeats itself never loads them.
        from semcache.embedders.export import export_model, locate_original

        if self._form != "torch":
            directory = find_export(self._form)
            if directory is None:
                logging.getLogger("semcache").warning(
                    "exporting %s to ONNX, once on this machine; this takes about ten seconds "
                    "(`semcache warmup` does it ahead of time)",
                    MODEL,
                )
                directory = export_model(self._form)
            if directory is not None:
                from semcache.embedders.onnx import OnnxEmbedder

                embedder = OnnxEmbedder(directory)
                form = form_of(embedder.fingerprint)
                assert form is not None
                return embedder, form
        from semcache.embedders.sentence_transformer import SentenceTransformerEmbedder

        return SentenceTransformerEmbedder(locate_original()), "torch"
