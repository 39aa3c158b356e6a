"""Looks up an embedder by name."""

from __future__ import annotations

from importlib.metadata import entry_points

from semcache.embedders.base import Embedder
from semcache.embedders.minilm import HUB_NAME, MODEL
from semcache.errors import ConfigError

GROUP = "semcache.embedders"


def named_embedder(given: Embedder | str) -> Embedder:
    """Return an embedder unchanged, or look one up by name.

    A name is that of the default model, of an entry point in the group `semcache.embedders`,
    or the name or path of a sentence-transformers model.

    Raises:
        ConfigError: the value is not an embedder or a name, or sentence-transformers is needed
            and not installed.
    """
    if isinstance(given, str):
        return _by_name(given)
    if isinstance(given, Embedder):
        return given
    raise ConfigError(
        f"embedder is a {type(given).__name__}; give an embedder such as "
        "SentenceTransformerEmbedder(...), a model's name, or FunctionEmbedder(function, ...) "
        "around a function."
    )


def _by_name(name: str) -> Embedder:
    if name in (MODEL, HUB_NAME):
        from semcache.embedders.default import DefaultEmbedder

        return DefaultEmbedder()
    for point in entry_points(group=GROUP):
        if point.name == name:
            embedder: Embedder = point.load()()
            return embedder
    from semcache.embedders.sentence_transformer import SentenceTransformerEmbedder

    return SentenceTransformerEmbedder(name)
