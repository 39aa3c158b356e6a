"""The shipped pair model: do two questions ask for the same answer?

[CLS] stored [SEP] asked [SEP] through five layers, run by onnxruntime. Its word embeddings
are those of all-MiniLM-L6-v2, read from the default embedder's own file, so that this one
holds the layers alone. `benchmarks/verifier` trains it; docs/explanation/pair-model.md
is its card.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semcache.embedders.minilm import (
    REINSTALL,
    SHIPPED,
    SHIPPED_MANIFEST,
    TOKENIZER,
    WORDS,
    check_digest,
)
from semcache.embedders.runtime import load_onnxruntime
from semcache.errors import EmbedderError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MODEL_FILE = Path(__file__).with_name("pair.onnx")
LONGEST_SIDE = 96
"""Tokens of one question that the model looks at."""
_CLS, _SEP = 101, 102


class PairModel:
    """A `Verifier` over the shipped file. Nothing is loaded before it is needed.

    Args:
        file: the layers.
    """

    def __init__(self, file: Path = MODEL_FILE) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._ready: tuple[Any, Any, NDArray[Any]] | None = None

    def load(self) -> None:
        """Get ready; takes a fraction of a second.

        Raises:
            EmbedderError: a part is not to be had.
        """
        self._parts()

    def logits(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """log-odds that (stored, asked) ask for the same, for each pair.

        Raises:
            EmbedderError: the model cannot be run.
        """
        session, tokenizer, words = self._parts()
        laid = [laid_out(_tokens(tokenizer, a), _tokens(tokenizer, b)) for a, b in pairs]
        return [float(found) for found in session.run(None, _packed(laid, words))[0]]

    def after_fork(self) -> None:
        """In a child process: another thread of the parent may have held the lock."""
        self._lock = threading.Lock()

    def _parts(self) -> tuple[Any, Any, NDArray[Any]]:
        ready = self._ready
        if ready is None:
            with self._lock:
                ready = self._ready
                if ready is None:
                    ready = self._ready = self._open()
        return ready

    def _open(self) -> tuple[Any, Any, NDArray[Any]]:
        onnxruntime = load_onnxruntime()
        from tokenizers import Tokenizer

        from semcache.embedders.onnx import map_words

        files = SHIPPED_MANIFEST.files
        words = map_words(SHIPPED / WORDS, files[WORDS], REINSTALL)
        check_digest(SHIPPED / TOKENIZER, files[TOKENIZER], REINSTALL)
        try:
            tokenizer = Tokenizer.from_file(str(SHIPPED / TOKENIZER))
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            options.log_severity_level = 3
            session = onnxruntime.InferenceSession(
                str(self._file), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise EmbedderError(f"The verifier in {self._file} cannot be used: {error}") from error
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return session, tokenizer, words


def _tokens(tokenizer: Any, text: str) -> tuple[int, ...]:
    return _remembered(tokenizer, text)


@lru_cache(maxsize=2048)
def _remembered(tokenizer: Any, text: str) -> tuple[int, ...]:
    ids = tokenizer.encode(text[: 12 * LONGEST_SIDE], add_special_tokens=False).ids
    return tuple(ids[:LONGEST_SIDE])


def laid_out(a: Sequence[int], b: Sequence[int]) -> tuple[list[int], list[int]]:
    """Tokens of a pair, and the mark of each: 2 for the second text, + 1 where both have it."""
    in_a, in_b = set(a), set(b)
    marks = [0, *(int(t in in_b) for t in a), 0, *(2 + (t in in_a) for t in b), 2]
    return [_CLS, *a, _SEP, *b, _SEP], marks


def _packed(laid: Sequence[tuple[list[int], list[int]]], words: NDArray[Any]) -> dict[str, Any]:
    """The inputs of the graph: packed as the embedder's are, words looked up, each marked."""
    import numpy as np

    from semcache.embedders.onnx import packed

    lengths = np.array([len(tokens) for tokens, _ in laid])
    return {
        **packed([tokens for tokens, _ in laid], words),
        "marks": np.concatenate([np.array(marks, np.int64) for _, marks in laid]),
        "first": np.cumsum(lengths) - lengths,
    }
