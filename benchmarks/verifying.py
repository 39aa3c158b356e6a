"""What looking at candidates costs: lookups by the path they took, beside the embedding.

python -m benchmarks.verifying [--stream FILE] [--prompts N]

Every prompt of a stream goes through the real cache in its order. In turns with each lookup
its prompt is embedded alone, and one candidate is verified alone: the ratios are of the same
run. By default the prompts of our own set, which comes with a clone.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench import ready_embedder
from benchmarks.common import RESULTS, environment, percentiles, say, write_json
from benchmarks.streams import SUPPORT, read
from semcache import SemanticCache, Trust
from semcache.types import Lookup
from semcache.verification.pair_model import PairModel

PATHS = {
    "exact": "exact hit",
    "none": "no neighbour near enough: nobody looks",
    "guards": "guards only (they refuse)",
    "words": "the same words",
    "model 1": "pair model, one candidate",
    "model 2": "pair model, two candidates",
    "model 3": "pair model, three candidates",
}


class Counting:
    """The shipped pair model, counting."""

    def __init__(self) -> None:
        self.inner = PairModel()
        self.asked = 0

    def load(self) -> None:
        self.inner.load()

    def logits(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        self.asked += len(pairs)
        return self.inner.logits(pairs)


def path_of(lookup: Lookup, asked: int) -> str:
    """Which way a lookup took."""
    if lookup.tier == "exact":
        return "exact"
    if asked:
        return f"model {asked}"
    candidate = lookup.candidate
    if candidate is not None and candidate.evidence is not None:
        return "words"
    return "guards" if lookup.decision.reason == "refused" else "none"


def measure(path: Path, prompts: int, bound: float) -> dict[str, Any]:
    """Seconds of each lookup by its path, of the embedding, and of one candidate."""
    embedder, verifier = ready_embedder(), Counting()
    verifier.load()
    lookups: dict[str, list[tuple[float, float]]] = defaultdict(list)
    alone: list[tuple[float, float]] = []
    before = ""
    with tempfile.TemporaryDirectory(prefix="semcache-verifying-") as directory:
        cache = SemanticCache(
            directory,
            max_false_hit_rate=bound,
            embedder=embedder,
            trust=Trust(verifier=verifier, judge_in_background=False),
            judge=lambda _, stored, fresh: stored == fresh,
            hooks=(),
        )
        for row in read(path)[:prompts]:
            start = time.perf_counter()
            embedder.embed([row.prompt])
            embedded = time.perf_counter() - start
            if before:
                start = time.perf_counter()
                verifier.inner.logits([(before, row.prompt)])
                alone.append((time.perf_counter() - start, embedded))
            before, asked = row.prompt, verifier.asked
            messages = [*row.history, {"role": "user", "content": row.prompt}]
            start = time.perf_counter()
            lookup = cache.lookup(messages=messages, namespace=row.tenant)
            taken = time.perf_counter() - start
            lookups[path_of(lookup, verifier.asked - asked)].append((taken, embedded))
            if lookup.completion is None:
                cache.record(lookup, f"{row.tenant} {row.answer_id}")
        cache.close()
    total = sum(map(len, lookups.values()))
    return {
        "stream": path.name.split(".")[0],
        "prompts": total,
        "bound": bound,
        "embedding": percentiles([e for _, e in alone]),
        "one_candidate": _beside(alone),
        "paths": {
            name: {"share": round(len(lookups[name]) / total, 4), **_beside(lookups[name])}
            for name in PATHS
            if lookups[name]
        },
    }


def _beside(pairs: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Milliseconds, and the ratio of medians to the embedding of the same prompts."""
    taken, embedded = np.array(pairs).T
    return {
        **percentiles(list(taken)),
        "ratio_p50": round(float(np.median(taken) / np.median(embedded)), 3),
    }


def table(result: dict[str, Any]) -> str:
    """For the documents."""
    lines = [
        "| a lookup that ends with | share | median | beside the embedding alone |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, said in result["paths"].items():
        lines.append(
            f"| {PATHS[name]} | {said['share']:.1%} | {said['p50_ms']:.2f} ms | "
            f"{said['ratio_p50']:.2f} × |"
        )
    one, embedding = result["one_candidate"], result["embedding"]
    lines.append(
        f"| *one candidate, by the pair model alone* | | {one['p50_ms']:.2f} ms | "
        f"{one['ratio_p50']:.2f} × |"
    )
    lines.append(f"| *the embedding alone* | | {embedding['p50_ms']:.2f} ms | 1 |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stream", type=Path, default=SUPPORT)
    parser.add_argument("--prompts", type=int, default=5000)
    parser.add_argument("--max-false-hit-rate", type=float, default=0.05)
    parser.add_argument("--json", type=Path, default=RESULTS / "verifying.json")
    args = parser.parse_args()
    found = measure(args.stream, args.prompts, args.max_false_hit_rate)
    say(table(found))
    write_json(args.json, {"environment": environment(), **found})


if __name__ == "__main__":
    main()
