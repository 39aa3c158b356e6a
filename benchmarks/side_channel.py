"""Can somebody tell from the time of an answer what others have asked before?

python -m benchmarks.side_channel [--json OUT]

Half of the demo's questions have been asked by others. Whoever shares their namespace asks all of
them, some in other words, and guesses from the time of each answer whether it came from the cache.
The model is a stand-in that takes 80 to 400 ms, far faster than real ones, which makes guessing
harder. The measure is the share of pairs (one question asked before, one not) of which the faster
answer is the one that was asked before: 0.5 is chance, 1 is certainty. It is taken without a delay,
and with `Privacy(hit_delay=...)` drawn from the durations of the model's own calls.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.common import RESULTS, environment, say, write_json
from semcache import Calls, Privacy, SemanticCache
from semcache.tools.demo import questions

PROBES, FASTEST, SLOWEST, SEED = 120, 0.08, 0.4, 11


def probed(hit_delay: float | Callable[[], float]) -> dict[str, Any]:
    """Durations of the answers to questions that were asked before, and to others."""
    rng = random.Random(SEED)
    prompts = list(dict.fromkeys(q.prompt for q in questions() if not q.history))
    rng.shuffle(prompts)
    known, unknown = prompts[:PROBES], prompts[PROBES : 2 * PROBES]
    asks: list[bool] = []
    with SemanticCache(
        ":memory:", hooks=(), privacy=Privacy(hit_delay=hit_delay), calls=Calls(draw=lambda: 1.0)
    ) as cache:

        @cache.cached(model="m")
        def ask(prompt: str) -> str:  # noqa: ARG001 - the answer does not matter
            if asks:
                time.sleep(rng.uniform(FASTEST, SLOWEST))
            return "an answer"

        for prompt in known:  # asked by others, whose time does not matter
            ask(prompt)
        asks.append(True)

        def seconds(prompt: str) -> float:
            start = time.perf_counter()
            ask(prompt)
            return time.perf_counter() - start

        before = [seconds(prompt) for prompt in known]
        others = [seconds(prompt) for prompt in unknown]
    faster = np.array(before)[:, None] < np.array(others)[None, :]
    return {
        "asked_before_median_ms": round(1e3 * median(before), 3),
        "not_asked_median_ms": round(1e3 * median(others), 1),
        "told_apart": round(float(faster.mean()), 3),
    }


def table(result: dict[str, Any]) -> str:
    """The two runs as a table."""
    lines = [
        "| | asked before | not asked | told apart |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, title in (("without", "as it is"), ("with_delay", "with `hit_delay`")):
        row = result[name]
        lines.append(
            f"| {title} | {row['asked_before_median_ms']:.2f} ms | "
            f"{row['not_asked_median_ms']:.0f} ms | {row['told_apart']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, default=RESULTS / "side_channel.json")
    args = parser.parse_args()
    rng = random.Random(SEED + 1)
    result = {
        "without": probed(0.0),
        "with_delay": probed(lambda: rng.uniform(FASTEST, SLOWEST)),
    }
    say(str(result))
    write_json(args.json, {"environment": environment(), "probes": 2 * PROBES, **result})


if __name__ == "__main__":
    main()
