"""The shipped pair model, which scores whether two questions ask for the same answer.

A five-layer transformer, run by onnxruntime, reads "[CLS] stored [SEP] asked [SEP]". It takes the
word embeddings of all-MiniLM-L6-v2 from the default embedder's file, so that its own file holds
only the layers. `benchmarks/verifier` trains it; docs/explanation/pair-model.md is its model card.
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
"""Tokens of each question that the model reads; the rest is cut off."""
_CLS, _SEP = 101, 102


class PairModel:
    """A `Verifier` that runs the shipped pair model. It is loaded on first use.

    Args:
        file: the ONNX file with the layers.

    Attributes:
        highest_logit: no pair gets higher log-odds; two equal questions get 2 to 7.
    """

    highest_logit = 7.0

    def __init__(self, file: Path = MODEL_FILE) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._ready: tuple[Any, Any, NDArray[Any]] | None = None

    def load(self) -> None:
        """Load the model, which takes a fraction of a second.

        Raises:
            EmbedderError: a file or a package is missing or damaged.
        """
        self._parts()

    def logits(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Log-odds that both questions ask for the same answer, for each pair (stored, asked).

        Raises:
            EmbedderError: the model cannot be loaded.
        """
        session, tokenizer, words = self._parts()
        inputs = [laid_out(_tokens(tokenizer, a), _tokens(tokenizer, b)) for a, b in pairs]
        scores = session.run(None, _packed(inputs, words))[0]
        return [min(float(score), self.highest_logit) for score in scores]

    def after_fork(self) -> None:
        """Recreate the lock in a child process: a thread of the parent may have held it."""
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
            raise EmbedderError(
                f"The pair model in {self._file} cannot be loaded: {error}"
            ) from error
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return session, tokenizer, words


@lru_cache(maxsize=2048)
def _tokens(tokenizer: Any, text: str) -> tuple[int, ...]:
    ids = tokenizer.encode(text[: 12 * LONGEST_SIDE], add_special_tokens=False).ids
    return tuple(ids[:LONGEST_SIDE])


def laid_out(a: Sequence[int], b: Sequence[int]) -> tuple[list[int], list[int]]:
    """The tokens of a pair, each with a mark: 2 if in the second text, plus 1 if in both texts."""
    in_a, in_b = set(a), set(b)
    marks = [0, *(int(t in in_b) for t in a), 0, *(2 + (t in in_a) for t in b), 2]
    return [_CLS, *a, _SEP, *b, _SEP], marks


def _packed(inputs: Sequence[tuple[list[int], list[int]]], words: NDArray[Any]) -> dict[str, Any]:
    """The inputs of the ONNX graph: packed tokens with their word embeddings and marks."""
    import numpy as np

    from semcache.embedders.onnx import packed

    lengths = np.array([len(tokens) for tokens, _ in inputs])
    return {
        **packed([tokens for tokens, _ in inputs], words),
        "marks": np.concatenate([np.array(marks, np.int64) for _, marks in inputs]),
        "first": np.cumsum(lengths) - lengths,
    }
