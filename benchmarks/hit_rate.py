"""Hit rate and false hits of a stream, replayed through the real cache.

python -m benchmarks.hit_rate --stream FILE [--policy fixed --threshold 0.9]
python -m benchmarks.hit_rate --all          every stream of ../shared/data and our own

Without a threshold a fixed policy is replayed over a grid of them. `--json OUT` and
`--plot OUT` keep figures and plots; texts never leave the process.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import plots
from benchmarks.bench import ready_embedder
from benchmarks.common import RESULTS, environment, say, write_json
from benchmarks.metrics import Outcome, figures
from benchmarks.policies import Bound, Fixed, Learner, VCache
from benchmarks.replay import Remembering, RememberingVerifier, Way, cut_at, replay
from benchmarks.streams import SUPPORT, Row, read
from semcache.embedders.default import DefaultEmbedder
from semcache.verification.pair_model import PairModel

GRID = (0.70, 0.75, 0.80, 0.85, 0.90, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99)
DELTAS = RATES = (0.02, 0.05, 0.10)
OTHERS_WINDOW = 128
STREAMS = Path(__file__).parents[2] / "shared" / "data" / "streams"


def policies(args: argparse.Namespace) -> list[tuple[str, Learner | Bound]]:
    """(what it is called, a new one) for each policy to replay."""
    if args.policy == "fixed":
        return [(f"fixed {at:g}", Fixed(at)) for at in args.threshold or GRID]
    if args.policy == "vcache":
        return [(f"vcache {delta:g}", VCache(delta)) for delta in args.delta or DELTAS]
    if args.policy == "verified":
        rates = args.max_false_hit_rate or RATES
        return [(f"verified {rate:g}", Bound(rate)) for rate in rates]
    raise SystemExit(f"there is no policy {args.policy!r}: fixed, vcache, verified")


Judge = Callable[[bool, random.Random], bool | None]
VERIFIER = RememberingVerifier(PairModel())


def erring(share: float) -> Judge | None:
    """A judge that turns so many of the labels around; None: one that errs never."""
    if not share:
        return None
    return lambda right, rng: right != (rng.random() < share)


def run(
    rows: Sequence[Row],
    chosen: Sequence[tuple[str, Learner | Bound]],
    embedder: Remembering,
    way: Way,
    warm: Sequence[Row] = (),
    judge: Judge | None = None,
) -> list[tuple[dict[str, Any], list[Outcome]]]:
    """(figures, outcomes) of each policy over one stream."""
    embedder.prepare([row.prompt.strip() for row in (*warm, *rows)])
    found = []
    for name, policy in chosen:
        start = time.perf_counter()
        outcomes = replay(rows, policy, embedder, way, warm=warm, judge=judge, verifier=VERIFIER)
        said = figures(outcomes)
        seconds = round(time.perf_counter() - start, 1)
        found.append(({"policy": name, **said, "seconds": seconds}, outcomes))
        rate = said["false_hit_rate"]
        say(
            f"  {name}: hit rate {said['hit_rate']:.1%} (oracle {said['oracle_hit_rate']:.1%}), "
            f"false hits {said['false_hits']:,} of {said['semantic_hits']:,}"
            + ("" if rate is None else f" = {rate:.1%}")
            + f", explored {said['labels_bought']:,}"
            + f", {seconds:.0f} s"
        )
    return found


def summary(results: Sequence[dict[str, Any]]) -> str:
    """A table for the terminal."""
    lines = [
        "policy         hit rate  exact  semantic  false hits  false hit rate (95%)     error rate"
        "  saved"
    ]
    for r in results:
        rate, interval = r["false_hit_rate"], r["false_hit_interval"]
        told = "-" if rate is None else f"{rate:6.1%} ({interval[0]:.1%} to {interval[1]:.1%})"
        lines.append(
            f"{r['policy']:14} {r['hit_rate']:8.1%} {r['exact_hits']:6,} {r['semantic_hits']:9,} "
            f"{r['false_hits']:11,}  {told:24} {r['error_rate']:10.2%} {r['calls_saved']:6,}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--stream", type=Path, nargs="+", help="JSON Lines, gzip or not")
    where.add_argument("--all", action="store_true", help="all that are there")
    parser.add_argument("--policy", default="fixed", choices=("fixed", "vcache", "verified"))
    parser.add_argument("--threshold", type=float, nargs="+")
    parser.add_argument("--delta", type=float, nargs="+", help="vCache's bound")
    parser.add_argument("--max-false-hit-rate", type=float, nargs="+", help="semcache's bound")
    parser.add_argument(
        "--judge-error", type=float, default=0.0, help="share of labels that are wrong"
    )
    parser.add_argument("--warm", type=Path, help="a stream to replay before, not counted")
    parser.add_argument("--reverse", action="store_true", help="the stream from its end")
    parser.add_argument("--ttl", type=float, help="seconds")
    parser.add_argument("--max-entries", type=int)
    parser.add_argument("--last-message-only", action="store_true")
    parser.add_argument(
        "--exact-search",
        action="store_true",
        help="search one by one, over texts cut at 128 tokens: what the model's own tokenizer "
        "does by default, and so do other people's replays",
    )
    parser.add_argument("--window", type=int, help="cut texts after so many tokens")
    parser.add_argument("--by-meaning", action="store_true", help="whatever the language")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path, help="a folder, or the name of one stream's files")
    args = parser.parse_args()
    paths = [*sorted(STREAMS.glob("*.jsonl.gz")), SUPPORT] if args.all else args.stream
    options = {"ttl": args.ttl, "max_entries": args.max_entries}
    way = Way(
        args.last_message_only,
        args.exact_search,
        tuple((name, value) for name, value in options.items() if value is not None),
        args.seed,
    )
    window = args.window or (OTHERS_WINDOW if args.exact_search else None)
    cut = None if window is None else cut_at(ready_embedder()._parts()[1], window)
    embedder = Remembering(DefaultEmbedder(), cut)
    embedder.load()
    try:
        warm = read(args.warm) if args.warm else []
        streams = {stem(path): read(path, by_meaning=args.by_meaning) for path in paths}
    except (OSError, ValueError) as error:
        sys.exit(f"benchmarks.hit_rate: {error}")
    results = {}
    for name, rows in streams.items():
        say(f"{name}: {len(rows):,} prompts")
        ordered = rows[::-1] if args.reverse else rows
        found = run(ordered, policies(args), embedder, way, warm, erring(args.judge_error))
        results[name] = [one for one, _ in found]
        print(f"{name}\n{summary(results[name])}\n", flush=True)
        if args.plot:
            folder = args.plot if args.all or len(streams) > 1 else args.plot.parent
            base = name if args.all or len(streams) > 1 else args.plot.stem
            plots.replayed(name, found, folder / base)
    result = {"environment": environment(), "way": vars_of(args), "streams": results}
    if args.json:
        write_json(args.json, result)
    elif args.all:
        write_json(RESULTS / "hit_rate.json", result)


def stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".jsonl")


def vars_of(args: argparse.Namespace) -> dict[str, Any]:
    names = (
        "policy", "judge_error", "ttl", "max_entries", "last_message_only", "exact_search",
        "window", "by_meaning",
    )  # fmt: skip
    return {**{name: getattr(args, name) for name in (*names, "reverse", "seed")}}


if __name__ == "__main__":
    main()
