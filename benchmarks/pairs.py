"""Pairs of questions, each in an empty cache: what a newcomer's first paraphrase meets.

python -m benchmarks.pairs FILE [--max-false-hit-rate R] [--json OUT]

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

from benchmarks.common import environment, say, write_json
from semcache import SemanticCache, Trust
from semcache.embedders.default import DefaultEmbedder
from semcache.options import MAX_FALSE_HIT_RATE
from semcache.verification.pair_model import PairModel

PAIRS = Path(__file__).parent / "data" / "pairs.jsonl"


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
    parser.add_argument("file", type=Path, nargs="?", default=PAIRS, metavar="FILE")
    parser.add_argument("--max-false-hit-rate", type=float, default=MAX_FALSE_HIT_RATE)
    parser.add_argument("--json", type=Path, help="where to write the result")
    args = parser.parse_args()
    pairs = [json.loads(line) for line in args.file.read_text().splitlines() if line.strip()]
    outcomes = served(pairs, args.max_false_hit_rate)
    result = counted(pairs, outcomes)
    say(f"at most {args.max_false_hit_rate:.0%} wrong, nothing learned:")
    for pair, hit in zip(pairs, outcomes, strict=True):
        if hit and not pair["same"]:
            say(f"  served, and wrong: {pair['a']!r} -> {pair['b']!r}")
    print(json.dumps(result))
    if args.json is not None:
        rate = {"max_false_hit_rate": args.max_false_hit_rate}
        write_json(args.json, {"environment": environment(), **rate, **result})


if __name__ == "__main__":
    main()
