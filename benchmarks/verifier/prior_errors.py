"""How often candidates are wrong at each chance, before anything is learned: the prior errors.

    python -m benchmarks.verifier.prior_errors [--data DIR] [--sample N] [--json OUT]

Of each development stream a sample of prompts is looked up among all earlier ones of its scope. The
best candidate's log-odds, by the shipped weights, is compared with whether its answer was right.
The log-odds of a wrong answer are fitted as intercept - slope * log-odds: over all streams, and for
each stream over the others alone, beside what that stream shows. How far the streams lie from the
fit of the others is the spread that a cold cache must allow for. The numbers that ship are in
`semcache.verification.calibration`.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import RESULTS, environment, say, write_json
from benchmarks.frontier import Stream
from benchmarks.replay import Remembering
from benchmarks.streams import SUPPORT, read
from benchmarks.verifier.prior import STREAMS
from semcache.embedders.default import DefaultEmbedder
from semcache.verification.features import chance_of, log_odds

NOISY = ("s1_qqp", "s5_multiturn")
"""Streams whose labels call many equal questions different; the shipped fit leaves them out."""
LEAST, SERVED = 1.0, 2.33
"""Log-odds from which on pairs are fitted, and from which on the streams are compared."""

Pair = tuple[float, bool]


def fitted(streams: Sequence[Sequence[Pair]]) -> tuple[float, float]:
    """(intercept, slope) of the log-odds of a wrong answer; each stream weighs by the root of
    its size."""
    from scipy.optimize import minimize

    used = [[pair for pair in pairs if pair[0] > LEAST] for pairs in streams]
    x = np.array([logit for pairs in used for logit, _ in pairs])
    y = np.array([float(right) for pairs in used for _, right in pairs])
    w = np.array([len(pairs) ** -0.5 for pairs in used for _ in pairs])

    def loss(p: Any) -> float:
        z = p[0] + p[1] * x
        return float((w * (np.logaddexp(0, z) - y * z)).sum())

    intercept, slope = minimize(loss, [0.0, 1.0]).x
    return -float(intercept), float(slope)


def compared(pairs: Sequence[Pair], fit: tuple[float, float]) -> dict[str, Any]:
    """What a stream shows above `SERVED`, beside what a fit foretells for it."""
    served = [pair for pair in pairs if pair[0] >= SERVED]
    wrong = sum(not right for _, right in served)
    foretold = float(np.mean([chance_of(fit[0] - fit[1] * logit) for logit, _ in served]))
    measured = (wrong + 0.5) / (len(served) + 1)
    return {
        "candidates": len(served),
        "wrong": wrong,
        "share_wrong": round(wrong / len(served), 4),
        "foretold": round(foretold, 4),
        "difference_in_log_odds": round(log_odds(measured) - log_odds(foretold), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data/streams"))
    parser.add_argument("--sample", type=int, default=1500, help="prompts of each stream")
    parser.add_argument("--json", type=Path, default=RESULTS / "prior_errors.json")
    args = parser.parse_args()
    embedder = Remembering(DefaultEmbedder())
    streams: dict[str, list[Pair]] = {}
    for path in [*(args.data / f"{name}.jsonl.gz" for name in STREAMS), SUPPORT]:
        name = path.name.split(".")[0]
        best = Stream(read(path), embedder, args.sample).ranked(learning=False)
        streams[name] = [(one.score, one.right) for one in best if one.features]
        say(f"  {name}: {len(streams[name]):,} candidates")
    left_out = {
        name: compared(pairs, fitted([other for n, other in streams.items() if n != name]))
        for name, pairs in streams.items()
    }
    differences = [row["difference_in_log_odds"] for row in left_out.values()]
    clean = fitted([pairs for name, pairs in streams.items() if name not in NOISY])
    result = {
        "environment": environment(),
        "sample": args.sample,
        "all_streams": [round(number, 3) for number in fitted(list(streams.values()))],
        "without_noisy_labels": [round(number, 3) for number in clean],
        "left_out": left_out,
        "spread_between_streams": round(math.sqrt(float(np.mean(np.square(differences)))), 2),
    }
    write_json(args.json, result)
    print(json.dumps({k: v for k, v in result.items() if k != "environment"}, indent=1))


if __name__ == "__main__":
    main()
