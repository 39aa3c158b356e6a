"""Exports the default model to ONNX in float32, on machines where a cache needs it.

A cache needs it if an earlier version of semcache found float32 faster than int8 there, or if
the user chose it. The export is compared with the original's vectors of `SENTENCES` before
use, and is moved to its final name atomically, with a manifest of checksums.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path

from semcache.embedders.minilm import (
    DIMENSION,
    GRAPH,
    HUB_NAME,
    MANIFEST,
    MODEL,
    TOKENIZER,
    WEIGHTS_SHA256,
    WHEEL,
    WINDOW,
    Manifest,
    check_digest,
    export_directory,
    models_directory,
    read_manifest,
    versioned,
)
from semcache.embedders.onnx import OnnxEmbedder
from semcache.embedders.reference import MIN_COSINE, min_cosine
from semcache.errors import EmbedderError
from semcache.private_files import changeable_by_others, make_directory


def locate_original() -> Path:
    """Return the directory of the original model, from its package or from the hub.

    Raises:
        EmbedderError: neither is available, or the weights are not the official ones.
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
    except Exception as error:  # not installed, or neither a local copy nor a network
        raise EmbedderError(
            f"The original weights of {MODEL} are not on this machine and could not be fetched "
            f"from the hub ({type(error).__name__}). "
            f"Install them with `pip install --no-deps {WHEEL.replace('_', '-')}`, or run "
            "`semcache reembed` to replace a cache's vectors with those of the model shipped with "
            "semcache."
        ) from error


def export_float32() -> Path:
    """Return the directory of the float32 export; create the export if there is none.

    Raises:
        EmbedderError: the original weights or the reference vectors are not available, or the
            export does not match the reference vectors.
    """
    final = export_directory()
    if read_manifest(final) is not None:
        if (reason := changeable_by_others(final)) is not None:
            raise EmbedderError(
                f"The exported model is not used, because {reason}: whoever can change it decides "
                "which questions are similar. Set SEMCACHE_MODELS to a directory of your own."
            )
        return final
    logging.getLogger("semcache").warning(
        "exporting %s to ONNX in float32, once on this machine; this takes a few seconds", MODEL
    )
    original = locate_original()
    make_directory(models_directory())
    work = Path(tempfile.mkdtemp(prefix="export-", dir=models_directory()))
    try:
        _write(original, work)
        _check(OnnxEmbedder(work))
        _move(work, final)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return final


def _write(original: Path, directory: Path) -> None:
    """Write the graph, the tokenizer and the manifest."""
    from safetensors.numpy import load_file

    from semcache.embedders.graph import Shape, encoder_graph

    shape = Shape.from_config(json.loads((original / "config.json").read_text()))
    graph = encoder_graph(load_file(original / "model.safetensors"), shape, quantised=False)
    (directory / GRAPH).write_bytes(graph)
    shutil.copyfile(original / TOKENIZER, directory / TOKENIZER)
    names = (GRAPH, TOKENIZER)
    files = {n: hashlib.sha256((directory / n).read_bytes()).hexdigest() for n in names}
    manifest = Manifest(MODEL, WEIGHTS_SHA256, versioned("float32"), DIMENSION, WINDOW, files)
    (directory / MANIFEST).write_text(json.dumps(asdict(manifest), indent=2) + "\n")


def _check(embedder: OnnxEmbedder) -> None:
    agreement = min_cosine(embedder)
    if agreement < MIN_COSINE["float32"]:
        raise EmbedderError(
            f"The export of {MODEL} in float32 agrees with the original only to a cosine of "
            f"{agreement:.4f} on this machine, less than the required {MIN_COSINE['float32']}. "
            "It will not be used."
        )


def _move(work: Path, final: Path) -> None:
    """Move the finished directory to its final name, unless another process has done so."""
    try:
        os.replace(work, final)
    except OSError:
        if read_manifest(final) is None:
            shutil.rmtree(final, ignore_errors=True)
            os.replace(work, final)
