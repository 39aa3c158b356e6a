"""The demo's stream, and a harder one, under semcache's policy and at several thresholds.

python -m benchmarks.demo [--json OUT]

The second stream is `benchmarks/data/near_misses`: 413 questions of which every sixth is a
near-miss, far more than any traffic has.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, environment, write_json
from semcache import Calls, SemanticCache, Trust
from semcache.tools.demo import Question, questions, run

DATA = Path(__file__).parent / "data"
RATES = (0.02, 0.05, 0.10)
SEEDS = (1,)
"""Of the questions that are asked although they could be served."""
THRESHOLDS = (0.85, 0.90, 0.95)


def replayed(asked: Sequence[Question], **policy: Any) -> dict[str, Any]:
    """Hits, misses and wrong answers of one pass over a stream."""
    with (
        tempfile.TemporaryDirectory() as directory,
        SemanticCache(directory, hooks=(), **policy) as cache,
    ):
        *_, outcome = run(cache, list(asked))
    return {
        "questions": outcome.questions,
        "exact_hits": outcome.results["exact"],
        "semantic_hits": outcome.semantic_hits,
        "misses": outcome.results["miss"],
        "explored": outcome.results["explore"],
        "false_hits": sum(outcome.wrong.values()),
        "false_hits_by_kind": dict(+outcome.wrong),
        "halves": [[half.semantic_hits, half.wrong] for half in outcome.halves],
        "across_tenants": outcome.across_tenants,
        "oracle_hits": outcome.repeated,
        "oracle_semantic_hits": outcome.repeated - outcome.exact_repeats,
    }


def policies(asked: Sequence[Question]) -> list[dict[str, Any]]:
    """One stream under every policy."""
    found = []
    for rate in RATES:
        for seed in SEEDS:
            draw = random.Random(seed).random
            result = replayed(
                asked,
                max_false_hit_rate=rate,
                trust=Trust(judge_in_background=False),
                calls=Calls(draw=draw),
            )
            found.append({"max_false_hit_rate": rate, "seed": seed, **result})
    return found + [{"threshold": t, **replayed(asked, threshold=t)} for t in THRESHOLDS]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, default=RESULTS / "demo.json")
    args = parser.parse_args()
    streams = {"day": questions(), "near_misses": questions(DATA / "near_misses")}
    found = {name: policies(asked) for name, asked in streams.items()}
    write_json(args.json, {"environment": environment(), "streams": found})


if __name__ == "__main__":
    main()
