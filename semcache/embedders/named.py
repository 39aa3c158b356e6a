"""An embedder by its name."""

from __future__ import annotations

from importlib.metadata import entry_points

from semcache.embedders.base import Embedder
from semcache.embedders.minilm import HUB_NAME, MODEL
from semcache.errors import ConfigError

GROUP = "semcache.embedders"


def named_embedder(given: Embedder | str) -> Embedder:
    """An embedder, or one by name: the default model, an entry point of the group
    `semcache.embedders`, or a sentence-transformers model by name or path.

    Raises:
        ConfigError: it is none of these.
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
            made: Embedder = point.load()()
            return made
    from semcache.embedders.sentence_transformer import SentenceTransformerEmbedder

    return SentenceTransformerEmbedder(name)
