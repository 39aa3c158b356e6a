"""Builds the embedder and the embedding part of the semantic tier from options."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from semcache.embedders.base import CheckedEmbedder, Embedder
from semcache.embedders.minilm import default_fingerprint, form_of
from semcache.embedders.named import named_embedder
from semcache.engine.embedding import QuestionEmbedder
from semcache.errors import IndexMismatchError

if TYPE_CHECKING:
    from semcache.backends.base import Backend
    from semcache.options import Matching
    from semcache.types import Vector

_REMOTE_RUNS = 16
"""Concurrent runs of a remote embedder, which waits for a server instead of computing."""
_LONGEST_TOKEN = 100
"""Assumed maximum characters per token: a text longer than `window` times this cannot fit."""


def choose_embedder(given: Embedder | str | None, backend: Backend) -> Embedder:
    """The given embedder, or the variant of the default one that made the stored vectors.

    Raises:
        IndexMismatchError: the stored vectors come from another embedder.
        ConfigError: `given` is not an embedder.
    """
    stored = backend.embedder
    if given is None:
        from semcache.embedders.default import DefaultEmbedder

        form = None if stored is None else form_of(stored)
        if stored is not None and form is None:
            raise IndexMismatchError(
                stored=stored, given=default_fingerprint("int8"), where=backend.name
            )
        return DefaultEmbedder(form)
    embedder = named_embedder(given)
    if stored is not None and embedder.fingerprint != stored:
        raise IndexMismatchError(stored=stored, given=embedder.fingerprint, where=backend.name)
    return embedder


def question_embedder(embedder: Embedder, matching: Matching) -> QuestionEmbedder:
    """Wrap an embedder with batching, a time limit and handling of long prompts."""
    from semcache.embedders.pool import EmbedderPool

    checked = isinstance(embedder, CheckedEmbedder)
    cannot_hang = isinstance(embedder, CheckedEmbedder) and embedder.bounded_time
    limited: Embedder = embedder
    timeout = matching.embed_timeout
    if timeout is not None and not cannot_hang:
        from semcache.embedders.time_limit import TimeLimited

        limited = TimeLimited(embedder, timeout)
    pool = EmbedderPool(limited, runs=None if embedder.local else _REMOTE_RUNS, trusted=checked)
    long = _embed_long(limited) if matching.long_prompts == "chunks" else None
    return QuestionEmbedder(pool.embed, _fits(limited), long)


def _fits(embedder: Embedder) -> Callable[[str], bool]:
    def fits(question: str) -> bool:
        window = embedder.window
        # A token has at least one byte; two tokens mark the start and the end.
        if window is None or len(question.encode()) + 2 <= window:
            return True
        if len(question) > _LONGEST_TOKEN * window:
            return False
        return embedder.count_tokens(question) <= window

    return fits


def _embed_long(embedder: Embedder) -> Callable[[str], Vector]:
    def embed_long(question: str) -> Vector:
        from semcache.embedders.chunks import embed_in_chunks

        return embed_in_chunks(embedder, question)

    return embed_long
