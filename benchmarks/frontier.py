"""What the verifier could serve, with a threshold chosen with hindsight.

python -m benchmarks.frontier [--stream FILE ...] [--json OUT]

Every prompt is stored, and looked up among all earlier ones of its scope. The hits at a rate are
the right answers above the lowest threshold at which no larger share of the best candidates is
wrong. Three rankings are measured:

- `hits`: by the verifier as it is used, which learns from the traffic. Every prompt is sent to the
  model, so that every best candidate gets a correct label after it has been ranked.
- `hits_cold`: by the shipped weights, without learning.
- `hits_by_cosine`: by the similarity of the nearest candidate that the guards do not refuse.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from benchmarks.common import RESULTS, environment, say, write_json
from benchmarks.replay import Remembering, RememberingVerifier
from benchmarks.streams import SUPPORT, Row, read
from semcache.embedders.default import DefaultEmbedder
from semcache.options import MAX_FALSE_HIT_RATE
from semcache.types import Observation
from semcache.verification import features
from semcache.verification.calibration import BoundConfig
from semcache.verification.features import SAME_WORDS, chance_of, log_odds
from semcache.verification.pair_model import PairModel
from semcache.verification.policies import FLOOR, MAX_EVALUATED, NEIGHBOURS
from semcache.verification.prior import WITH_MODEL
from semcache.verification.state import CalibrationState

RATES = (0.02, 0.05, 0.10)
NAMES = ("s1_qqp", "s2_tenants", "s3_zipf", "s4_near_miss", "s5_multiturn")

Near = list[tuple[int, float]]
"""The nearest stored prompts of a lookup, each with its similarity."""


class Ranked(NamedTuple):
    """The best candidate of a lookup, in one of the rankings.

    Attributes:
        score: the higher, the sooner it is served.
        stored: number of the stored prompt.
        right: whether its answer is right.
        features: its feature vector; empty if the two prompts have the same words.
    """

    score: float
    stored: int
    right: bool
    features: tuple[float, ...] = ()


class Stream:
    """One stream, whose lookups are ranked in the order of arrival.

    Args:
        sample: the number of lookups to rank, drawn at random; by default all of them.
    """

    def __init__(
        self, rows: Sequence[Row], embedder: Remembering, sample: int | None = None
    ) -> None:
        embedder.prepare([row.prompt for row in rows])
        lookups = list(_lookups(rows, embedder.embed([row.prompt for row in rows])))
        if sample is not None and sample < len(lookups):
            lookups = sorted(random.Random(5).sample(lookups, sample))
        self._rows, self._lookups = rows, lookups
        self._model = RememberingVerifier(PairModel())

    def ranked(self, *, learning: bool) -> list[Ranked]:
        """The best candidate of each lookup by the verifier."""
        state = CalibrationState(WITH_MODEL, BoundConfig(MAX_FALSE_HIT_RATE))
        best_ones = []
        for asked, near in self._lookups:
            candidates = self._candidates(asked, near, state)
            if candidates:
                best = max(candidates, key=lambda one: one.score)
                best_ones.append(best)
                if learning:
                    state.apply_label(_label(asked, best), replayed=True)
        return best_ones

    def _candidates(self, asked: int, near: Near, state: CalibrationState) -> list[Ranked]:
        stored = [SimpleNamespace(entry=SimpleNamespace(id=n), similarity=s) for n, s in near]
        agreements = state.neighbour_agreements(stored)  # type: ignore[arg-type]
        prompt, candidates, evaluated = self._rows[asked].prompt, [], 0
        for (number, similarity), agreement in zip(near, agreements, strict=True):
            question, right = self._rows[number].prompt, self._right(number, asked)
            evidence = features.extract_evidence(question, prompt, similarity, agreement)
            if evidence.by == "same words":
                candidates.append(Ranked(log_odds(SAME_WORDS), number, right))
            elif evidence.by == "cosine" and evaluated < MAX_EVALUATED:
                evaluated += 1
                (logit,) = self._model.logits([(question, prompt)])
                values = features.with_model_score(question, prompt, evidence, logit).features
                candidates.append(Ranked(state.weights.logit(values), number, right, values))
        return candidates

    def by_cosine(self) -> list[Ranked]:
        """The nearest candidate of each lookup that the guards do not refuse."""
        nearest = []
        for asked, near in self._lookups:
            for number, similarity in near:
                question, prompt = self._rows[number].prompt, self._rows[asked].prompt
                if features.extract_evidence(question, prompt, similarity).by != "guards":
                    nearest.append(Ranked(similarity, number, self._right(number, asked)))
                    break
        return nearest

    def _right(self, stored: int, asked: int) -> bool:
        return self._rows[stored].right == self._rows[asked].right


def _label(asked: int, best: Ranked) -> Observation:
    """The label of a best candidate, as sure as a person's."""
    expected = chance_of(best.score)
    return Observation(
        0.0, "", "review", "", best.stored, asked, best.right, expected, best.features
    )


def _lookups(rows: Sequence[Row], vectors: Any) -> Iterator[tuple[int, Near]]:
    """The number of each new prompt, with its nearest earlier ones."""
    scopes: dict[tuple[str, str], list[int]] = {}
    seen: set[tuple[str, str, str]] = set()
    for number, row in enumerate(rows):
        scope = (row.tenant, json.dumps(row.history))
        if (*scope, row.prompt) in seen:
            continue
        seen.add((*scope, row.prompt))
        earlier = scopes.setdefault(scope, [])
        if earlier:
            similarities = vectors[earlier] @ vectors[number]
            order = np.argsort(-similarities)[:NEIGHBOURS]
            near = [
                (earlier[at], float(similarities[at])) for at in order if similarities[at] >= FLOOR
            ]
            if near:
                yield number, near
        earlier.append(number)


def hits(ranked: Sequence[Ranked]) -> dict[str, int]:
    """Right answers above the best threshold for each rate."""
    order = np.argsort([-one.score for one in ranked], kind="stable")
    good = np.array([one.right for one in ranked], bool)[order]
    wrong, count = np.cumsum(~good), np.arange(1, len(good) + 1)
    result = {}
    for rate in RATES:
        kept = np.flatnonzero(wrong <= rate * count)
        result[f"{rate:g}"] = int(good[: kept[-1] + 1].sum()) if len(kept) else 0
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stream", type=Path, nargs="+", help="by default all that are there")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/streams"))
    parser.add_argument("--json", type=Path, default=RESULTS / "frontier.json")
    args = parser.parse_args()
    paths = args.stream or [*(args.data / f"{name}.jsonl.gz" for name in NAMES), SUPPORT]
    embedder = Remembering(DefaultEmbedder())
    streams = {}
    for path in paths:
        stream = Stream(read(path), embedder)
        learned = stream.ranked(learning=True)
        name = path.name.split(".")[0]
        streams[name] = {
            "candidates": len(learned),
            "hits": hits(learned),
            "hits_cold": hits(stream.ranked(learning=False)),
            "hits_by_cosine": hits(stream.by_cosine()),
        }
        say(f"  {name}: {streams[name]}")
    write_json(args.json, {"environment": environment(), "streams": streams})


if __name__ == "__main__":
    main()
