"""Embeds texts that are longer than the embedder's window."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from semcache.embedders.vectors import unit_rows

if TYPE_CHECKING:
    from semcache.embedders.base import Embedder
    from semcache.types import Vector


def embed_in_chunks(embedder: Embedder, text: str) -> Vector:
    """Embed a whole text as the mean of its chunks, weighted by their tokens: float32[d]."""
    chunks = split_to_fit(embedder, text)
    vectors = embedder.embed(chunks)
    weights = np.array([embedder.count_tokens(chunk) for chunk in chunks], np.float32)
    mean = (vectors * weights[:, None]).sum(axis=0)
    vector: Vector = unit_rows(mean[None], 1, embedder.dimension, embedder.fingerprint)[0]
    return vector


def split_to_fit(embedder: Embedder, text: str) -> list[str]:
    """Halve a text, at a space if there is one, until every chunk fits the window."""
    if embedder.window is None or embedder.count_tokens(text) <= embedder.window or len(text) < 2:
        return [text]
    middle = len(text) // 2
    space = text.rfind(" ", 1, middle)
    split = space if space > 0 else middle
    halves = (text[:split].strip(), text[split:].strip())
    return [chunk for half in halves if half for chunk in split_to_fit(embedder, half)]
