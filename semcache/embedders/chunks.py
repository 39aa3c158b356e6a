"""One vector for a text that is longer than the embedder's window."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from semcache.embedders.vectors import unit_rows

if TYPE_CHECKING:
    from semcache.embedders.base import Embedder
    from semcache.types import Vector


def embed_in_chunks(embedder: Embedder, text: str) -> Vector:
    """Embed all of a text: the mean over pieces that fit, each by its tokens. float32[d]."""
    batched = split_to_fit(embedder, text)
    vectors = embedder.embed(batched)
    weights = np.array([embedder.count_tokens(piece) for piece in batched], np.float32)
    mean = (vectors * weights[:, None]).sum(axis=0)
    vector: Vector = unit_rows(mean[None], 1, embedder.dimension, embedder.fingerprint)[0]
    return vector


def split_to_fit(embedder: Embedder, text: str) -> list[str]:
    """Halve a text, between words where there are any, until every piece fits."""
    if embedder.window is None or embedder.count_tokens(text) <= embedder.window or len(text) < 2:
        return [text]
    middle = len(text) // 2
    space = text.rfind(" ", 1, middle)
    cut = space if space > 0 else middle
    halves = (text[:cut].strip(), text[cut:].strip())
    return [piece for half in halves if half for piece in split_to_fit(embedder, half)]
