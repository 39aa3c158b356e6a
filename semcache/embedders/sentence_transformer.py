"""Runs any sentence-transformers model in PyTorch; needs the extra of the same name."""

from __future__ import annotations

import hashlib
import importlib.util
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semcache.embedders.base import CheckedEmbedder
from semcache.embedders.vectors import unit_rows
from semcache.errors import ConfigError, EmbedderError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from semcache.types import Vector

INSTALL = 'pip install "semcache-llm[sentence-transformers]"'


def is_installed() -> bool:
    """Whether sentence-transformers can be imported; does not import it."""
    return importlib.util.find_spec("sentence_transformers") is not None


class SentenceTransformerEmbedder(CheckedEmbedder):
    """An `Embedder` over a sentence-transformers model.

    Args:
        model: a model's name on the hub, a local path, or a loaded `SentenceTransformer`.
        device: a PyTorch device name.

    Raises:
        ConfigError: sentence-transformers is not installed.
        EmbedderError: (on first use) the model cannot be loaded or fails.
    """

    local = True

    def __init__(self, model: str | Path | SentenceTransformer, *, device: str = "cpu") -> None:
        if isinstance(model, str | Path) and not is_installed():
            raise ConfigError(
                f"The embedding model {model!s} is run by sentence-transformers, which is not "
                f"installed: {INSTALL}."
            )
        self._source: Any = model
        self._device = device
        self._lock = threading.Lock()
        self._loaded: tuple[Any, str] | None = None

    def load(self) -> None:
        self._parts()

    @property
    def fingerprint(self) -> str:
        return self._parts()[1]

    @property
    def dimension(self) -> int:
        model = self._parts()[0]
        get_dimension = getattr(model, "get_embedding_dimension", None)
        return int((get_dimension or model.get_sentence_embedding_dimension)())

    @property
    def window(self) -> int | None:
        length = self._parts()[0].max_seq_length
        return None if length is None else int(length)

    def count_tokens(self, text: str) -> int:
        return len(self._parts()[0].tokenizer(text, truncation=False, verbose=False)["input_ids"])

    def embed(self, texts: Sequence[str]) -> Vector:
        model, name = self._parts()
        try:
            raw = model.encode(list(texts), convert_to_numpy=True, show_progress_bar=False)
        except Exception as error:
            raise EmbedderError(f"{name} failed on {len(texts)} texts: {error}") from error
        return unit_rows(raw, len(texts), None, name)

    def _parts(self) -> tuple[Any, str]:
        loaded = self._loaded
        if loaded is None:
            with self._lock:
                loaded = self._loaded
                if loaded is None:
                    loaded = self._loaded = self._load()
        return loaded

    def _load(self) -> tuple[Any, str]:
        model = self._source
        if isinstance(model, str | Path):
            try:
                from sentence_transformers import SentenceTransformer

                model = SentenceTransformer(str(model), device=self._device)
            except Exception as error:
                raise EmbedderError(
                    f"The sentence-transformers model {self._source!s} cannot be loaded: {error}. "
                    "Give the name of a model on a reachable hub, or the path of a local copy."
                ) from error
        return model, f"sentence-transformers/{self._name()}/{_weights_digest(model)}"

    def _name(self) -> str:
        return Path(self._source).name if isinstance(self._source, str | Path) else "model"


def _weights_digest(model: Any) -> str:
    """The first 16 hex digits of the SHA-256 of all weights, ordered by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).numpy().tobytes())
    return digest.hexdigest()[:16]
