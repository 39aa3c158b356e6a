"""How well the shipped pair model tells the streams' pairs apart.

    python -m benchmarks.verifier.evaluate [--data ../shared/data/streams] [--pairs N]

Average precision over pairs of a prompt and one of its nearest five earlier ones, beside the
cosine's; the model has learned from none of them.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np

from benchmarks.common import RESULTS, environment, say, write_json
from benchmarks.replay import Remembering
from benchmarks.streams import SUPPORT, read
from benchmarks.verifier.prior import SEED, STREAMS, near_pairs
from benchmarks.verifier.train import average_precision
from semcache.embedders.default import DefaultEmbedder
from semcache.verification.pair_model import PairModel


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data/streams"))
    parser.add_argument("--pairs", type=int, default=3000, help="of each stream, drawn at random")
    parser.add_argument("--json", type=Path, default=RESULTS / "verifier.json")
    args = parser.parse_args()
    embedder, model, rng = Remembering(DefaultEmbedder()), PairModel(), random.Random(SEED)
    found = {}
    for path in [*(args.data / f"{name}.jsonl.gz" for name in STREAMS), SUPPORT]:
        rows = read(path)
        embedder.prepare([row.prompt for row in rows])
        near = near_pairs(rows, embedder.embed([row.prompt for row in rows]))
        near = rng.sample(near, min(args.pairs, len(near)))
        labels = np.array([same for *_, same in near])
        cosine = np.array([similarity for _, _, similarity, _ in near], np.float32)
        logits = [model.logits([(a, b)])[0] for a, b, _, _ in near]
        name = path.name.split(".")[0]
        found[name] = {
            "pairs": len(near),
            "same": round(float(labels.mean()), 4),
            "model": round(average_precision(labels, np.array(logits, np.float32)), 4),
            "cosine": round(average_precision(labels, cosine), 4),
        }
        say(f"  {name}: {found[name]}")
    write_json(args.json, {"environment": environment(), "streams": found})


if __name__ == "__main__":
    main()
