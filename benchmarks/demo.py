"""What the demo's stream comes to at several thresholds.

python -m benchmarks.demo [--json OUT]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, environment, write_json
from semcache import SemanticCache
from semcache.tools.demo import questions, run

THRESHOLDS = (0.80, 0.85, 0.90, 0.95, 0.98)


def at(threshold: float) -> dict[str, Any]:
    """Hits, misses and wrong answers of one pass over the stream."""
    with (
        tempfile.TemporaryDirectory() as directory,
        SemanticCache(directory, threshold=threshold) as cache,
    ):
        *_, outcome = run(cache, questions())
    return {
        "threshold": threshold,
        "questions": outcome.questions,
        "exact_hits": outcome.ends["exact"],
        "semantic_hits": outcome.ends["semantic"],
        "misses": outcome.ends["miss"],
        "false_hits": sum(outcome.wrong.values()),
        "false_hits_by_kind": dict(+outcome.wrong),
        "across_tenants": outcome.across_tenants,
        "oracle_hits": outcome.repeated,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, default=RESULTS / "demo.json")
    args = parser.parse_args()
    rows = [at(threshold) for threshold in THRESHOLDS]
    write_json(args.json, {"environment": environment(), "thresholds": rows})


if __name__ == "__main__":
    main()
