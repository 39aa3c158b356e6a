"""How well the shipped pair model tells the streams' pairs apart.

    python -m benchmarks.verifier.evaluate [--data ../shared/data/streams] [--pairs N]

Average precision over pairs of a prompt and one of its nearest five earlier ones, beside the
cosine's, and over the pairs of the clusters that are held back
(`benchmarks/data/verifier_clusters_held_back.jsonl`). The model has learned from none of them.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.common import RESULTS, environment, say, write_json
from benchmarks.replay import Remembering
from benchmarks.streams import SUPPORT, read
from benchmarks.verifier.fine_tune import pairs_of_clusters
from benchmarks.verifier.prior import SEED, STREAMS, Sample, near_pairs
from benchmarks.verifier.train import average_precision
from semcache.embedders.default import DefaultEmbedder
from semcache.verification.pair_model import PairModel

HELD_BACK = Path(__file__).parents[1] / "data" / "verifier_clusters_held_back.jsonl"


def measured(pairs: Sequence[Sample], model: PairModel) -> dict[str, float]:
    """How many pairs there are, the share of same ones, and both average precisions."""
    labels = np.array([same for *_, same in pairs])
    cosine = np.array([similarity for _, _, similarity, _ in pairs], np.float32)
    logits = [model.logits([(a, b)])[0] for a, b, _, _ in pairs]
    return {
        "pairs": len(pairs),
        "same": round(float(labels.mean()), 4),
        "model": round(average_precision(labels, np.array(logits, np.float32)), 4),
        "cosine": round(average_precision(labels, cosine), 4),
    }


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
        name = path.name.split(".")[0]
        found[name] = measured(near, model)
        say(f"  {name}: {found[name]}")
    clusters = pairs_of_clusters(HELD_BACK)
    embedder.prepare([text for a, b, _ in clusters for text in (a, b)])
    found[HELD_BACK.stem] = measured(
        [
            (a, b, float(embedder.embed([a])[0] @ embedder.embed([b])[0]), bool(same))
            for a, b, same in clusters
        ],
        model,
    )
    say(f"  {HELD_BACK.stem}: {found[HELD_BACK.stem]}")
    write_json(args.json, {"environment": environment(), "streams": found})


if __name__ == "__main__":
    main()
