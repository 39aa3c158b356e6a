"""Runs an exported sentence-transformers model in onnxruntime."""

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
    """An `Embedder` over the directory of an exported model.

    Args:
        directory: holds the files that the manifest lists.
        manifest: by default the one in the directory, written by `export.export_float32`.
        remedy: a sentence that says what to do if a file is missing or corrupt.
        threads: number of threads per run. One is best if the program also does other work: a
            short text gains little from a second thread, and several runs proceed in parallel.

    Raises:
        EmbedderError: the directory has no manifest, or (on first use) a file is missing or
            corrupt.
    """

    bounded_time = True

    local = True

    def __init__(
        self,
        directory: Path,
        manifest: Manifest | None = None,
        *,
        remedy: str = "Delete its directory; the model is then exported again.",
        threads: int = 1,
    ) -> None:
        manifest = manifest or read_manifest(directory)
        if manifest is None:
            raise EmbedderError(f"There is no exported model in {directory}.")
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
        tokens = [_truncated(tokenizer.encode(text).ids, self.window) for text in texts]
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
        """Session, tokenizer and word embeddings, loaded on first use and again after a fork."""
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
        # The graph needs no optimisation except constant folding.
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
    """The default model in int8, as shipped with the package."""
    return OnnxEmbedder(SHIPPED, SHIPPED_MANIFEST, remedy=REINSTALL, threads=threads)


@cache
def map_words(file: Path, digest: str, remedy: str) -> NDArray[Any]:
    """Map word embeddings into memory: float16[words, width]; checked once per process.

    Raises:
        EmbedderError: the file is missing or corrupt.
    """
    check_digest(file, digest, remedy)
    return np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))


def _is_normal(raw: Vector) -> bool:
    """Whether the graph's output, float32[1, d], has length 1.

    The graph normalises last, so its output has length 1, is zero, or has NaN in every element
    that is not zero: the first element decides. Computing the length would take longer, since
    the processor's caches are cold right after a run.
    """
    first = raw.item(0)
    return first != 0.0 and first == first


def _truncated(ids: list[int], window: int) -> list[int]:
    """Truncate to `window` tokens but keep the closing token, as the tokenizer would."""
    return ids if len(ids) <= window else [*ids[: window - 1], ids[-1]]


def _run(session: Any, tokens: Sequence[Sequence[int]], words: NDArray[Any] | None) -> Vector:
    """Run the model on one batch: float32[n, d]."""
    try:
        vectors: Vector = session.run(None, packed(tokens, words))[0]
    except Exception as error:
        raise EmbedderError(f"onnxruntime failed on {len(tokens)} texts: {error}") from error
    return vectors


def packed(tokens: Sequence[Sequence[int]], words: NDArray[Any] | None = None) -> dict[str, Any]:
    """The inputs of `graph.encoder_graph` for n texts.

    Args:
        words: the word embeddings, float16[words, width], if the graph does not contain them.
    """
    inputs = _packing(tokens)
    if words is not None:
        inputs["words"] = words[inputs.pop("tokens")].astype(np.float32)
    return inputs


def _packing(tokens: Sequence[Sequence[int]]) -> dict[str, Any]:
    """The concatenated tokens of n texts, with the indices that unpack and pack them."""
    if len(tokens) == 1:
        positions = np.arange(len(tokens[0]))
        spread = positions[None]
        mask = np.ones_like(spread)
        return {
            "tokens": np.array(tokens[0], np.int64),
            "positions": positions,
            "spread": spread,
            "mask": mask,
            "gathered": positions,
        }
    lengths = np.array([len(sequence) for sequence in tokens])
    starts = np.cumsum(lengths) - lengths
    columns = np.arange(lengths.max())
    inside = columns[None] < lengths[:, None]
    return {
        "tokens": np.concatenate([np.array(sequence, np.int64) for sequence in tokens]),
        "positions": np.arange(lengths.sum()) - np.repeat(starts, lengths),
        "spread": np.where(inside, starts[:, None] + columns, 0),
        "mask": inside.astype(np.int64),
        "gathered": np.flatnonzero(inside),
    }
