"""How often the local judge is right about real answers: by kind, beside the rule it replaced.

python -m benchmarks.judge [--data DIR] [--all] [--json OUT] [--plot OUT]

Each pair is two answers that people (or their result, for sums) say are the same or not. The
judge's weights were fitted to part of the questions (`is_fitting`); a pair is measured where
both of its questions are outside that part. `--all` measures every pair, for a directory of
which nothing was fitted to.

"clean" kinds are the pairs whose label is confirmed by an answer that is known to be right: both
texts contain it (same), or exactly one does (different).
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, environment, percentiles, say, write_json
from benchmarks.plots import BLUE, GREY
from semcache.embedders.default import DefaultEmbedder
from semcache.telemetry.intervals import wilson
from semcache.types import Completion
from semcache.verification import guards
from semcache.verification.base import Judge, Verifier
from semcache.verification.judges import LocalJudge
from semcache.verification.pair_model import PairModel

DATA = Path("../shared/data/judge")
KINDS = (
    "short_fact",
    "medium_fact",
    "span_sentence",
    "near_question",
    "nq301",
    "truthfulqa",
    "gsm_solutions",
    "gsm_symbolic",
    "refusal_strict",
    "long_same_model",
    "long_family",
    "long_detail",
    "long_arena",
    "long_other_prompt",
    "chatgpt_near_prompt",
)
CLEANED = ("short_fact", "medium_fact")
FITTING_SHARE = 0.6
"""Share of the questions that the weights may be fitted to."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers, and whether they say the same."""

    kind: str
    question: str
    of_stored: str
    stored: str
    fresh: str
    same: bool
    source: str


def read_pairs(directory: Path, kind: str) -> list[Pair]:
    """The pairs of a kind; none where the directory has no such file."""
    path = directory / f"{kind}.jsonl.gz"
    if not path.exists():
        return []
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [_pair(kind, json.loads(line)) for line in lines]


def _pair(kind: str, row: dict[str, Any]) -> Pair:
    return Pair(
        kind,
        row["question_asked"],
        row["question_stored"],
        row["stored"],
        row["fresh"],
        bool(row["same"]),
        row["source"],
    )


def is_fitting(question: str) -> bool:
    """Whether the judge's weights may be fitted to answers to a question."""
    digest = hashlib.sha256(f"judge|{question.lower()}".encode()).digest()
    return int.from_bytes(digest[:4], "big") < FITTING_SHARE * 2**32


def is_measured(pair: Pair) -> bool:
    """Whether neither of a pair's questions is one that the weights were fitted to."""
    return not is_fitting(pair.question) and not is_fitting(pair.of_stored)


def known_answers(pairs: Iterable[Pair]) -> dict[str, set[str]]:
    """Short answers that people called right, by question: spans copied out of a document."""
    found: dict[str, set[str]] = {}
    for pair in pairs:
        if pair.same and "fid /" in pair.source:
            found.setdefault(pair.question, set()).add(pair.stored.lower().strip(" ."))
    return found


def confirmed(pair: Pair, known: dict[str, set[str]]) -> bool:
    """Whether a known answer confirms a pair's label."""
    right = known.get(pair.question, set())
    has = [any(span in text.lower() for span in right) for text in (pair.stored, pair.fresh)]
    return all(has) if pair.same else sum(has) == 1


class CosineJudge:
    """The rule that the local judge replaced: the cosine of the answers decides."""

    def __init__(self, embedder: DefaultEmbedder, verifier: Verifier) -> None:
        self._embedder, self._verifier = embedder, verifier

    def judge(self, question: str, stored: Completion, fresh: Completion) -> bool | None:  # noqa: ARG002
        one, other = stored.text.strip(), fresh.text.strip()
        if not one or not other:
            return None
        if one.casefold().rstrip(".!") == other.casefold().rstrip(".!"):
            return True
        short = max(len(one), len(other)) <= 300
        if short and self._contradict(one, other):
            return False
        vectors = self._embedder.embed([one, other])
        similarity = float(vectors[0] @ vectors[1])
        if similarity >= 0.85:
            return None if short and self._verifier.logits([(one, other)])[0] < 0 else True
        return False if similarity <= 0.6 else None

    @staticmethod
    def _contradict(one: str, other: str) -> bool:
        counts = ("number", "date", "time", "place", "identifier", "order")
        return any(f.decisive and f.kind in counts for f in guards.compare(one, other))


def measure(judge: Judge, pairs: Sequence[Pair]) -> tuple[dict[str, Any], list[float]]:
    """Shares of verdicts with their 95% intervals, and the seconds of each."""
    counts: dict[tuple[bool, bool | None], int] = {}
    seconds = []
    for pair in pairs:
        start = time.perf_counter()
        said = judge.judge(pair.question, Completion(pair.stored), Completion(pair.fresh))
        seconds.append(time.perf_counter() - start)
        counts[pair.same, said] = counts.get((pair.same, said), 0) + 1
    return _shares(counts), seconds


def _shares(counts: dict[tuple[bool, bool | None], int]) -> dict[str, Any]:
    def count(same: bool, said: bool | None) -> int:
        return counts.get((same, said), 0)

    same = sum(count(True, said) for said in (True, False, None))
    different = sum(count(False, said) for said in (True, False, None))
    unsure = count(True, None) + count(False, None)
    wrong = count(True, False) + count(False, True)
    return {
        "true_on_same": _share(count(True, True), same),
        "false_on_same": _share(count(True, False), same),
        "true_on_different": _share(count(False, True), different),
        "false_on_different": _share(count(False, False), different),
        "labels_wrong": _share(wrong, same + different - unsure),
        "unsure": _share(unsure, same + different),
    }


def _share(count: int, of: int) -> dict[str, Any]:
    interval = wilson(count, of)
    return {
        "count": count,
        "of": of,
        "share": round(count / of, 4) if of else None,
        "interval": [round(end, 4) for end in interval] if interval else None,
    }


def measured_pairs(directory: Path, every: bool) -> dict[str, list[Pair]]:
    """The pairs to measure, by kind; the clean ones as kinds of their own."""
    found: dict[str, list[Pair]] = {}
    known = known_answers(read_pairs(directory, "span_sentence"))
    for kind in KINDS:
        pairs = [p for p in read_pairs(directory, kind) if every or is_measured(p)]
        if kind in CLEANED:
            name = f"{kind}_clean"
            found[name] = [replace(p, kind=name) for p in pairs if confirmed(p, known)]
        found[kind] = pairs
    return {kind: pairs for kind, pairs in found.items() if pairs}


def run(directory: Path, every: bool) -> dict[str, Any]:
    """Both judges on every kind."""
    embedder, verifier = DefaultEmbedder(), PairModel()
    judges: dict[str, Judge] = {
        "new": LocalJudge(embedder.embed, verifier=verifier),
        "old": CosineJudge(embedder, verifier),
    }
    embedder.embed(["ready"])
    verifier.load()
    kinds: dict[str, Any] = {}
    for kind, pairs in measured_pairs(directory, every).items():
        same = sum(pair.same for pair in pairs)
        result: dict[str, Any] = {"pairs": len(pairs), "same": same}
        for name, judge in judges.items():
            shares, seconds = measure(judge, pairs)
            result[name] = {**shares, "time": percentiles(seconds)}
        kinds[kind] = result
        say(row(kind, result))
    return {"measured": "all" if every else "outside the fitting part", "kinds": kinds}


def row(kind: str, result: dict[str, Any]) -> str:
    """One line of the table: each figure of the old judge, then of the new one."""
    figures = ("labels_wrong", "false_on_same", "true_on_different", "unsure")
    cells = [f"{_percent(result['old'][f])} / {_percent(result['new'][f])}" for f in figures]
    return f"| {kind} | {result['pairs']} | " + " | ".join(cells) + " |"


def _percent(figure: dict[str, Any]) -> str:
    return "-" if figure["share"] is None else f"{figure['share']:.1%}"


def plot(result: dict[str, Any], path: Path) -> None:
    """Wrong labels and missing verdicts of both judges, by kind."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    kinds = result["kinds"]
    figure, axes = plt.subplots(1, 2, figsize=(10, 6), sharey=True, layout="constrained")
    for axis, figure_name, title in (
        (axes[0], "labels_wrong", "labels that are wrong"),
        (axes[1], "unsure", "pairs without a verdict"),
    ):
        _bars(axis, kinds, figure_name)
        axis.set_title(title)
        axis.xaxis.set_major_formatter(mpl.ticker.PercentFormatter(1, decimals=0))
    axes[0].invert_yaxis()
    axes[1].legend(frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)
    say(f"wrote {path}")


def _bars(axis: Any, kinds: dict[str, Any], name: str) -> None:
    places = range(len(kinds))
    for offset, judge, colour in ((-0.2, "old", GREY), (0.2, "new", BLUE)):
        figures = [kinds[kind][judge][name] for kind in kinds]
        shares = [figure["share"] or 0.0 for figure in figures]
        ends = [figure["interval"] or (0.0, 0.0) for figure in figures]
        spread = [
            [share - low for share, (low, _) in zip(shares, ends, strict=True)],
            [high - share for share, (_, high) in zip(shares, ends, strict=True)],
        ]
        axis.barh([p + offset for p in places], shares, 0.38, color=colour, label=judge)
        axis.errorbar(
            shares, [p + offset for p in places], xerr=spread, fmt="none", ecolor="black", lw=0.8
        )
    axis.set_yticks(list(places), [f"{k} ({kinds[k]['pairs']})" for k in kinds])
    axis.spines[["top", "right"]].set_visible(False)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--all", action="store_true", help="nothing was fitted to these pairs")
    parser.add_argument("--json", type=Path, default=RESULTS / "judge.json")
    parser.add_argument("--plot", type=Path, default=RESULTS / "judge.png")
    args = parser.parse_args(arguments)
    result = {"environment": environment(), **run(args.data, args.all)}
    write_json(args.json, result)
    plot(result, args.plot)


if __name__ == "__main__":
    main()
