"""Embedders: they turn questions into vectors. Names are imported on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from semcache.lazy import lazy_names

if TYPE_CHECKING:
    from semcache.embedders.base import Embedder
    from semcache.embedders.default import DefaultEmbedder
    from semcache.embedders.function import FunctionEmbedder
    from semcache.embedders.remote import RemoteEmbedder
    from semcache.embedders.sentence_transformer import SentenceTransformerEmbedder

__all__ = [
    "DefaultEmbedder",
    "Embedder",
    "FunctionEmbedder",
    "RemoteEmbedder",
    "SentenceTransformerEmbedder",
]

_MODULES = {
    "DefaultEmbedder": "default",
    "Embedder": "base",
    "FunctionEmbedder": "function",
    "RemoteEmbedder": "remote",
    "SentenceTransformerEmbedder": "sentence_transformer",
}


__getattr__ = lazy_names(__name__, _MODULES)
