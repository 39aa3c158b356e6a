"""What the shipped verifier could serve, with a threshold chosen with hindsight.

python -m benchmarks.frontier [--stream FILE ...] [--json OUT]

Every prompt is stored, and looked up among all earlier ones of its scope. The hits at a rate are
the right answers above the lowest threshold at which no larger share of the best candidates is
wrong. Nothing is learned: this measures how well the shipped weights rank candidates, beside the
cosine alone, where the guards refuse, too.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.common import RESULTS, environment, say, write_json
from benchmarks.replay import Remembering, RememberingVerifier
from benchmarks.streams import SUPPORT, Row, read
from semcache.embedders.default import DefaultEmbedder
from semcache.verification import features
from semcache.verification.features import SAME_WORDS, log_odds
from semcache.verification.pair_model import PairModel
from semcache.verification.policies import FLOOR, MAX_EVALUATED, NEIGHBOURS
from semcache.verification.prior import WITH_MODEL
from semcache.verification.weights import Weights

RATES = (0.02, 0.05, 0.10)
NAMES = ("s1_qqp", "s2_tenants", "s3_zipf", "s4_near_miss", "s5_multiturn")


class Scored(NamedTuple):
    """The best candidate of a lookup.

    Attributes:
        logit: log-odds that it is right, by the shipped weights.
        similarity: of the nearest candidate that no guard refuses.
        right: whether the candidate is right.
        nearest_right: whether the nearest one is.
        same_words: whether the best candidate has the same words.
    """

    logit: float
    similarity: float
    right: bool
    nearest_right: bool
    same_words: bool


def best_candidates(
    rows: Sequence[Row], embedder: Remembering, sample: int | None = None
) -> list[Scored]:
    """The best candidate of each new prompt, or of a sample of them."""
    model, weights = RememberingVerifier(PairModel()), Weights.of(WITH_MODEL)
    embedder.prepare([row.prompt for row in rows])
    lookups = list(_lookups(rows, embedder.embed([row.prompt for row in rows])))
    random.Random(5).shuffle(lookups)
    found = (_scored(asked, near, model, weights) for asked, near in lookups[:sample])
    return [scored for scored in found if scored is not None]


def _scored(
    asked: Row, near: list[tuple[Row, float]], model: RememberingVerifier, weights: Weights
) -> Scored | None:
    agreements = features.neighbour_agreements(
        range(len(near)), [similarity for _, similarity in near], [0.0] * len(near)
    )
    candidates: list[Scored] = []
    evaluated = 0
    for (stored, similarity), agreement in zip(near, agreements, strict=True):
        evidence = features.extract_evidence(stored.prompt, asked.prompt, similarity, agreement)
        right = stored.right == asked.right
        if evidence.by == "same words":
            candidates.append(Scored(log_odds(SAME_WORDS), similarity, right, right, True))
        elif evidence.by == "cosine" and evaluated < MAX_EVALUATED:
            evaluated += 1
            (logit,) = model.logits([(stored.prompt, asked.prompt)])
            evidence = features.with_model_score(stored.prompt, asked.prompt, evidence, logit)
            likely = weights.logit(evidence.features)
            candidates.append(Scored(likely, similarity, right, right, False))
    if not candidates:
        return None
    best = max(candidates, key=lambda one: one.logit)
    nearest = max(candidates, key=lambda one: one.similarity)
    return best._replace(similarity=nearest.similarity, nearest_right=nearest.right)


def _lookups(rows: Sequence[Row], vectors: Any) -> Iterator[tuple[Row, list[tuple[Row, float]]]]:
    """Each new prompt with its nearest earlier ones: (prompt, [(stored, similarity), ...])."""
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
                (rows[earlier[at]], float(similarities[at]))
                for at in order
                if similarities[at] >= FLOOR
            ]
            if near:
                yield row, near
        earlier.append(number)


def hits(scores: Sequence[float], right: Sequence[bool]) -> dict[str, int]:
    """Right answers above the best threshold for each rate."""
    order = np.argsort(-np.array(scores), kind="stable")
    good = np.array(right, bool)[order]
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
        found = best_candidates(read(path), embedder)
        name = path.name.split(".")[0]
        streams[name] = {
            "candidates": len(found),
            "hits": hits([one.logit for one in found], [one.right for one in found]),
            "hits_by_cosine": hits(
                [one.similarity for one in found], [one.nearest_right for one in found]
            ),
        }
        say(f"  {name}: {streams[name]}")
    write_json(args.json, {"environment": environment(), "streams": streams})


if __name__ == "__main__":
    main()
