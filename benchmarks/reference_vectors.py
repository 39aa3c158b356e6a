"""The vectors that every form of the default model is held against, made by the original.

    python -m benchmarks.reference_vectors

A maintainer's tool, to be run when `SENTENCES` in semcache/embedders/reference.py change. It
needs the official weights and sentence-transformers, which runs them with PyTorch; the extra
`test` brings both. The digest that it prints goes into `REFERENCE_SHA256`.

Processors round differently: made elsewhere, the vectors may differ in the last digits of
float32, which is far below what any check asks for, and so will the digest.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np

from benchmarks.common import say
from semcache.embedders.export import locate_original
from semcache.embedders.reference import REFERENCE_FILE, SENTENCES
from semcache.embedders.sentence_transformer import SentenceTransformerEmbedder


def write_reference(file: Path) -> str:
    """Write the original's vectors of `SENTENCES`; returns the file's SHA-256."""
    vectors = SentenceTransformerEmbedder(locate_original()).embed(SENTENCES)
    np.save(file, vectors, allow_pickle=False)
    return hashlib.sha256(file.read_bytes()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=REFERENCE_FILE)
    args = parser.parse_args()
    before = np.load(args.out, allow_pickle=False) if args.out.exists() else None
    digest = write_reference(args.out)
    after = np.load(args.out, allow_pickle=False)
    say(f"{args.out}: {len(after)} vectors, {args.out.stat().st_size:,} bytes")
    if before is not None and before.shape == after.shape:
        say(f"largest difference from what was there: {np.abs(after - before).max():.1e}")
    print(f'REFERENCE_SHA256 = "{digest}"')


if __name__ == "__main__":
    main()
