"""Pairs of questions, each in an empty cache: what a newcomer's first paraphrase meets.

python -m benchmarks.pairs FILE [--max-false-hit-rate R] [--json OUT]
python -m benchmarks.pairs        both files of ours at 2, 5 and 10%, to benchmarks/results

Each line of FILE is {"a": ..., "b": ..., "same": true or false}. `a` is stored, `b` is asked, in a
cache that holds nothing else and has learned nothing. Honest paraphrases ("same") should be
served; traps should not.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, environment, say, write_json
from semcache import SemanticCache, Trust
from semcache.embedders.default import DefaultEmbedder
from semcache.options import MAX_FALSE_HIT_RATE
from semcache.verification.pair_model import PairModel

DATA = Path(__file__).parent / "data"
FILES = (DATA / "pairs.jsonl", DATA / "pairs_held_back.jsonl")
RATES = (0.02, 0.05, 0.10)


def served(pairs: Sequence[dict[str, Any]], rate: float) -> list[bool]:
    """Whether the answer to `a` is served to `b`, for each pair."""
    embedder, verifier = DefaultEmbedder(), PairModel()
    outcomes = []
    for pair in pairs:
        with SemanticCache(
            ":memory:",
            max_false_hit_rate=rate,
            embedder=embedder,
            hooks=(),
            trust=Trust(verifier=verifier, judge=None),
        ) as cache:
            cache.put(pair["a"], "the answer")
            outcomes.append(cache.lookup(pair["b"]).hit)
    return outcomes


def counted(pairs: Sequence[dict[str, Any]], outcomes: Sequence[bool]) -> dict[str, int]:
    """Pairs of each kind, and how many of them were served."""
    same = [hit for pair, hit in zip(pairs, outcomes, strict=True) if pair["same"]]
    different = [hit for pair, hit in zip(pairs, outcomes, strict=True) if not pair["same"]]
    return {
        "same": len(same),
        "served_same": sum(same),
        "different": len(different),
        "served_different": sum(different),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, nargs="?", metavar="FILE")
    parser.add_argument("--max-false-hit-rate", type=float, default=MAX_FALSE_HIT_RATE)
    parser.add_argument("--json", type=Path, help="where to write the result")
    args = parser.parse_args()
    if args.file is None:
        runs = [one_run(file, rate) for file in FILES for rate in RATES]
        target = args.json or RESULTS / "pairs.json"
        write_json(target, {"environment": environment(), "runs": runs})
        return
    result = one_run(args.file, args.max_false_hit_rate)
    if args.json is not None:
        write_json(args.json, {"environment": environment(), **result})


def one_run(file: Path, rate: float) -> dict[str, Any]:
    """All pairs of a file at one bound."""
    pairs = [json.loads(line) for line in file.read_text().splitlines() if line.strip()]
    outcomes = served(pairs, rate)
    result = {"file": file.stem, "max_false_hit_rate": rate, **counted(pairs, outcomes)}
    say(f"{file.name}, at most {rate:.0%} wrong, nothing learned:")
    for pair, hit in zip(pairs, outcomes, strict=True):
        if hit and not pair["same"]:
            say(f"  served, and wrong: {pair['a']!r} -> {pair['b']!r}")
    print(json.dumps(result))
    return result


if __name__ == "__main__":
    main()
