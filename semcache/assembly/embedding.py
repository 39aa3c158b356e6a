"""From options to an embedder."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from semcache.backends.local.sqlite.store import SQLiteStore
from semcache.embedders.base import Embedder
from semcache.embedders.minilm import HUB_NAME, MODEL, default_fingerprint, form_of
from semcache.engine.cache import Semantics
from semcache.errors import ConfigError, IndexMismatchError

if TYPE_CHECKING:
    from semcache.types import Vector

_REMOTE_RUNS = 16


_LONGEST_TOKEN = 100
"""Characters; a text with more than this for every token of the window is not even counted."""


LongPrompts = Literal["exact", "chunks"]


def choose_embedder(given: Embedder | str | None, store: SQLiteStore) -> Embedder:
    """The embedder that was given, or the default one in the form that the store holds.

    Raises:
        IndexMismatchError: the store's vectors come from another.
        ConfigError: it is no embedder.
    """
    stored = store.meta("fingerprint")
    if given is None:
        from semcache.embedders.default import DefaultEmbedder

        form = None if stored is None else form_of(stored)
        if stored is not None and form is None:
            raise IndexMismatchError(
                stored=stored, given=default_fingerprint("int8"), where=store.name
            )
        return DefaultEmbedder(form)
    embedder = named_embedder(given)
    if stored is not None and embedder.fingerprint != stored:
        raise IndexMismatchError(stored=stored, given=embedder.fingerprint, where=store.name)
    return embedder


def semantics(embedder: Embedder, *, long_prompts: LongPrompts, timeout: float | None) -> Semantics:
    """The semantic tier over an embedder: batches, a time limit, and long prompts.

    Raises:
        ConfigError: `long_prompts` or `timeout` is wrong.
    """
    if long_prompts not in ("exact", "chunks"):
        raise ConfigError(f"long_prompts is {long_prompts!r}; it is 'exact' or 'chunks'.")
    if timeout is not None and not timeout > 0:
        raise ConfigError(f"embed_timeout is {timeout!r}; give seconds above 0, or None.")
    from semcache.embedders.pool import EmbedderPool

    limited = embedder
    # The default model looks at 256 tokens at most: it cannot hang, and a thread costs it more.
    bounded = type(embedder).__module__ in ("semcache.embedders.default", "semcache.embedders.onnx")
    if timeout is not None and not bounded:
        from semcache.embedders.time_limit import TimeLimited

        limited = TimeLimited(embedder, timeout)
    pool = EmbedderPool(
        limited,
        # A server's answers are waited for, not computed: more of them at once.
        runs=None if embedder.local else _REMOTE_RUNS,
        trusted=type(embedder).__module__.startswith("semcache.embedders."),
    )
    long = _embed_long(limited) if long_prompts == "chunks" else None
    return Semantics(pool.embed, _fits(limited), long)


def _fits(embedder: Embedder) -> Callable[[str], bool]:
    def fits(question: str) -> bool:
        window = embedder.window
        # No token is shorter than a byte; two tokens mark beginning and end.
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


def named_embedder(given: Embedder | str) -> Embedder:
    """An embedder, or a sentence-transformers model by name or path.

    Raises:
        ConfigError: it is neither.
    """
    if given in (MODEL, HUB_NAME):
        from semcache.embedders.default import DefaultEmbedder

        return DefaultEmbedder()
    if isinstance(given, str):
        from semcache.embedders.sentence_transformer import SentenceTransformerEmbedder

        return SentenceTransformerEmbedder(given)
    if isinstance(given, Embedder):
        return given
    raise ConfigError(
        f"embedder is a {type(given).__name__}; give an embedder such as "
        "SentenceTransformerEmbedder(...), a model's name, or FunctionEmbedder(function, ...) "
        "around a function."
    )
