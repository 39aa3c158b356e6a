"""An exported sentence-transformers model, run by onnxruntime."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from semcache.embedders.base import CheckedEmbedder
from semcache.embedders.minilm import (
    GRAPH,
    REINSTALL,
    SHIPPED,
    SHIPPED_MANIFEST,
    TOKENIZER,
    WORDS,
    Manifest,
    check_digest,
    read_manifest,
)
from semcache.embedders.runtime import load_onnxruntime
from semcache.embedders.vectors import unit_rows
from semcache.errors import EmbedderError

if TYPE_CHECKING:
    import onnxruntime
    import tokenizers
    from numpy.typing import NDArray

    from semcache.types import Vector

    Parts: TypeAlias = tuple[
        onnxruntime.InferenceSession, tokenizers.Tokenizer, NDArray[Any] | None
    ]

_BATCH = 32


class OnnxEmbedder(CheckedEmbedder):
    """An `Embedder` over a directory with a model in one form.

    Args:
        directory: holds what the manifest says.
        manifest: by default the one in the directory, which `export.export_float32` wrote.
        remedy: what to do where a file is missing or another, as a sentence.
        threads: threads of one run. One is best beside other work: a run of a short
            text gains little from a second, and several runs go on side by side.

    Raises:
        EmbedderError: a file is missing or is not what the manifest says.
    """

    bounded_time = True

    local = True

    def __init__(
        self,
        directory: Path,
        manifest: Manifest | None = None,
        *,
        remedy: str = "Delete its directory; the model is then exported anew.",
        threads: int = 1,
    ) -> None:
        manifest = manifest or read_manifest(directory)
        if manifest is None:
            raise EmbedderError(f"{directory} holds no exported model.")
        self.manifest = manifest
        self.directory = directory
        self._remedy = remedy
        self.fingerprint = manifest.fingerprint
        self.dimension = manifest.dimension
        self.window: int | None = manifest.window
        self._threads = threads
        self._lock = threading.Lock()
        self._loaded: tuple[int, Parts] | None = None

    def load(self) -> None:
        self._parts()

    def count_tokens(self, text: str) -> int:
        tokenizer = self._parts()[1]
        return len(tokenizer.encode(text).ids)

    def embed(self, texts: Sequence[str]) -> Vector:
        session, tokenizer, words = self._parts()
        assert self.window is not None
        tokens = [_cut(tokenizer.encode(text).ids, self.window) for text in texts]
        if len(tokens) <= _BATCH:
            raw = _run(session, tokens, words)
            if len(tokens) == 1 and _is_normal(raw):
                return raw
            return unit_rows(raw, len(texts), self.dimension, self.fingerprint)
        order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
        vectors = np.empty((len(tokens), self.dimension), np.float32)
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            vectors[rows] = _run(session, [tokens[i] for i in rows], words)
        return unit_rows(vectors, len(texts), self.dimension, self.fingerprint)

    def _parts(self) -> Parts:
        """Session, tokenizer and word embeddings, made on first use and anew after a fork."""
        loaded = self._loaded
        if loaded is None or loaded[0] != os.getpid():
            with self._lock:
                loaded = self._loaded
                if loaded is None or loaded[0] != os.getpid():
                    loaded = self._loaded = (os.getpid(), self._load())
        return loaded[1]

    def _load(self) -> Parts:
        onnxruntime = load_onnxruntime()
        import tokenizers

        files = self.manifest.files
        for name in (GRAPH, TOKENIZER):
            check_digest(self.directory / name, files[name], self._remedy)
        words = None
        if WORDS in files:
            words = map_words(self.directory / WORDS, files[WORDS], self._remedy)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # The graph is written as it should run: only constants are left to fold.
        level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.graph_optimization_level = level
        try:
            session = onnxruntime.InferenceSession(
                str(self.directory / GRAPH), options, providers=["CPUExecutionProvider"]
            )
            tokenizer = tokenizers.Tokenizer.from_file(str(self.directory / TOKENIZER))
        except Exception as error:
            raise EmbedderError(
                f"The model in {self.directory} cannot be loaded: {error}. {self._remedy}"
            ) from error
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return session, tokenizer, words


def shipped_embedder(*, threads: int = 1) -> OnnxEmbedder:
    """The default model in int8, as it comes with the package."""
    return OnnxEmbedder(SHIPPED, SHIPPED_MANIFEST, remedy=REINSTALL, threads=threads)


@cache
def map_words(file: Path, digest: str, remedy: str) -> NDArray[Any]:
    """Word embeddings, float16[words, width], mapped into memory; checked once in a process.

    Raises:
        EmbedderError: the file is missing or another.
    """
    check_digest(file, digest, remedy)
    return np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))


def _is_normal(raw: Vector) -> bool:
    """Whether float32[1, d] of the graph, which normalises last, has length 1.

    Else it is zero, or not a number where it is not zero. To compute the length would take
    longer: what comes right after a run finds nothing of it in the processor's caches.
    """
    first = raw.item(0)
    return first != 0.0 and first == first


def _cut(ids: list[int], window: int) -> list[int]:
    """At most `window` tokens, the closing one kept, as the tokenizer itself truncates."""
    return ids if len(ids) <= window else [*ids[: window - 1], ids[-1]]


def _run(session: Any, tokens: Sequence[Sequence[int]], words: NDArray[Any] | None) -> Vector:
    """One pass over a batch: float32[n, d]."""
    try:
        vectors: Vector = session.run(None, packed(tokens, words))[0]
    except Exception as error:
        raise EmbedderError(f"onnxruntime failed on {len(tokens)} texts: {error}") from error
    return vectors


def packed(tokens: Sequence[Sequence[int]], words: NDArray[Any] | None = None) -> dict[str, Any]:
    """The inputs of `graph.encoder_graph` for n texts.

    Args:
        words: where the graph has no word embeddings of its own, those of all tokens.
    """
    inputs = _places(tokens)
    if words is not None:
        inputs["words"] = words[inputs.pop("tokens")].astype(np.float32)
    return inputs


def _places(tokens: Sequence[Sequence[int]]) -> dict[str, Any]:
    """The tokens of n texts one after another, and where each belongs."""
    if len(tokens) == 1:
        places = np.arange(len(tokens[0]))
        spread = places[None]
        mask = np.ones_like(spread)
        return {
            "tokens": np.array(tokens[0], np.int64),
            "positions": places,
            "spread": spread,
            "mask": mask,
            "gathered": places,
        }
    lengths = np.array([len(sequence) for sequence in tokens])
    starts = np.cumsum(lengths) - lengths
    places = np.arange(lengths.max())
    inside = places[None] < lengths[:, None]
    return {
        "tokens": np.concatenate([np.array(sequence, np.int64) for sequence in tokens]),
        "positions": np.arange(lengths.sum()) - np.repeat(starts, lengths),
        "spread": np.where(inside, starts[:, None] + places, 0),
        "mask": inside.astype(np.int64),
        "gathered": np.flatnonzero(inside),
    }
