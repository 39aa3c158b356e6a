"""Is the bound kept, and is it worth it? Every way of replaying that the promise must survive.

python -m benchmarks.bound               all development streams and our own, about half an hour
python -m benchmarks.bound --stream FILE [FILE ...] --json OUT

Of each stream: fixed thresholds (those that benchmarks.hit_rate has replayed) and vCache's rule
to compare with, then semcache at
`max_false_hit_rate` 0.02, 0.05 and 0.10 with a cold start, with the stream reversed, warm from
another stream, and with a judge that errs as the default judge does. One set of shipped defaults;
labels only as they are bought in the replay.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks import plots
from benchmarks.common import RESULTS, environment, say, write_json
from benchmarks.hit_rate import RATES, STREAMS, stem
from benchmarks.judged import MeasuredJudge
from benchmarks.metrics import figures, interval
from benchmarks.policies import Bound, Fixed, Learner, VCache
from benchmarks.replay import Remembering, RememberingVerifier, Way, replay
from benchmarks.streams import SUPPORT, Row, read
from semcache.embedders.default import DefaultEmbedder
from semcache.verification.pair_model import PairModel

NAMES = ("s1_qqp", "s2_tenants", "s3_zipf", "s4_near_miss", "s5_multiturn")
WARM = {"s1_qqp": "s2_tenants", "s2_tenants": "s1_qqp"}
"""What a warm start is replayed from; for the others there is none."""
THRESHOLDS = (0.70, 0.75, 0.80, 0.85, 0.90, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99)


def one_stream(
    path: Path, data: Path, fixed: Sequence[dict[str, Any]]
) -> tuple[str, dict[str, Any]]:
    """All replays of one stream.

    Args:
        fixed: the stream's replays with fixed thresholds, where they are known already.
    """
    name, rows = stem(path), read(path)
    embedder, verifier = Remembering(DefaultEmbedder()), RememberingVerifier(PairModel())
    warm_path = data / f"{WARM.get(name)}.jsonl.gz"
    warm = read(warm_path) if name in WARM and warm_path.exists() else []
    embedder.prepare([row.prompt.strip() for row in (*rows, *warm)])

    def play(policy: Learner | Bound, rows: Sequence[Row], **more: Any) -> dict[str, Any]:
        start = time.perf_counter()
        outcomes = replay(rows, policy, embedder, Way(), verifier=verifier, **more)
        return {**figures(outcomes), "seconds": round(time.perf_counter() - start, 1)}

    found: dict[str, Any] = {"prompts": len(rows)}
    found["fixed"] = list(fixed) or [
        {"policy": f"fixed {t:g}", **play(Fixed(t), rows)} for t in THRESHOLDS
    ]
    found["vcache"] = [{"policy": f"vcache {d:g}", **play(VCache(d), rows)} for d in RATES]
    say(f"  {name}: vCache's rule done")
    ways: dict[str, dict[str, Any]] = {
        "cold": {},
        "reversed": {},
        "warm": {"warm": warm},
        "measured judge": {"judge": MeasuredJudge()},
    }
    for way, more in ways.items():
        if way == "warm" and not warm:
            continue
        ordered = rows[::-1] if way == "reversed" else rows
        found[way] = [
            {"policy": f"verified {r:g}", **play(Bound(r), ordered, **more)} for r in RATES
        ]
        say(f"  {name}: {way}: " + ", ".join(_short(one) for one in found[way]))
    found["table"] = [compared(found, place, rate) for place, rate in enumerate(RATES)]
    return name, found


def _short(one: dict[str, Any]) -> str:
    rate = one["false_hit_rate"]
    told = "-" if rate is None else f"{rate:.1%}"
    return f"{one['semantic_hits']:,} ({told} wrong)"


def compared(found: dict[str, Any], place: int, rate: float) -> dict[str, Any]:
    """Ours beside the best that a fixed threshold and vCache's rule could have done."""
    ours = found["cold"][place]
    best = max((r["semantic_hits"] for r in found["fixed"] if _meets(r, rate)), default=0)
    rule = max((r["semantic_hits"] for r in found["vcache"] if _meets(r, rate)), default=0)
    saved = ours["semantic_hits"] - ours["audits"]
    return {
        "rate": rate,
        "saved": saved,
        "false_hit_rate": ours["false_hit_rate"],
        "best_fixed": best,
        "vcache": rule,
        "ratio_to_fixed": round(saved / best, 2) if best else None,
        "kept": {way: kept(found[way][place], rate) for way in _ways(found)},
        "total_saved": ours["calls_saved"],
        "total_saved_fixed": max(
            (r["calls_saved"] for r in found["fixed"] if _meets(r, rate)), default=0
        ),
    }


def _meets(one: dict[str, Any], rate: float) -> bool:
    return one["false_hit_rate"] is None or one["false_hit_rate"] <= rate


def _ways(found: dict[str, Any]) -> list[str]:
    return [way for way in ("cold", "reversed", "warm", "measured judge") if way in found]


def kept(one: dict[str, Any], rate: float) -> bool:
    """Whether neither the whole nor the second half is above the rate beyond chance."""
    parts = (one, one["halves"][1])
    lows = [interval(part["false_hits"], part["semantic_hits"]) for part in parts]
    return all(low is None or low[0] <= rate for low in lows)


def table(streams: dict[str, Any]) -> str:
    """For the terminal."""
    lines = ["stream         bound   saved  wrong  best fixed  ratio  vCache  kept"]
    for name, found in streams.items():
        for row in found["table"]:
            wrong = "-" if row["false_hit_rate"] is None else f"{row['false_hit_rate']:.1%}"
            ratio = "-" if row["ratio_to_fixed"] is None else f"{row['ratio_to_fixed']:.1f}"
            told = ", ".join(f"{w}: {'yes' if k else 'NO'}" for w, k in row["kept"].items())
            lines.append(
                f"{name:14} {row['rate']:5.0%} {row['saved']:7,} {wrong:>6} "
                f"{row['best_fixed']:11,} {ratio:>6} {row['vcache']:7,}  {told}"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stream", type=Path, nargs="+", help="by default all that are there")
    parser.add_argument("--data", type=Path, default=STREAMS, help="where warm starts come from")
    parser.add_argument(
        "--fixed",
        type=Path,
        default=RESULTS / "hit_rate.json",
        help="replays with fixed thresholds, from benchmarks.hit_rate; others are replayed",
    )
    parser.add_argument("--json", type=Path, default=RESULTS / "bound.json")
    parser.add_argument("--plot", type=Path, help="a folder; by default docs/ for all streams")
    parser.add_argument("--workers", type=int, default=2, help="streams at once")
    args = parser.parse_args()
    paths = args.stream or [*(args.data / f"{name}.jsonl.gz" for name in NAMES), SUPPORT]
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        sys.exit(f"benchmarks.bound: not there: {', '.join(missing)}")
    DefaultEmbedder().load()
    told = environment()
    known = json.loads(args.fixed.read_text())["streams"] if args.fixed.exists() else {}
    fixed = [known.get(stem(path), ()) for path in paths]
    with ProcessPoolExecutor(args.workers) as pool:
        streams = dict(pool.map(one_stream, paths, [args.data] * len(paths), fixed))
    print(table(streams))
    write_json(args.json, {"environment": told, "streams": streams})
    folder = args.plot or (None if args.stream else Path("docs"))
    if folder is not None:
        plots.frontiers(streams, folder / "frontiers")


if __name__ == "__main__":
    main()
