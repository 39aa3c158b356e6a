"""Fit the prior of the verifier's weights, and write it to semcache/verification/prior.py.

    python -m benchmarks.verifier.prior --data ../shared/data/streams

Of each stream a sample of pairs, a prompt and one of its nearest five in its scope, with
whether their answers are the same; logistic regression over them, each stream weighing by
the square root of its size, so that the large do not drown the rest. Two fits: with what the
pair model says, and without it.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import say
from benchmarks.replay import Remembering
from benchmarks.streams import SUPPORT, Row, read
from semcache.embedders.default import DefaultEmbedder
from semcache.types import Evidence
from semcache.verification import features as verifier
from semcache.verification import guards
from semcache.verification.pair_model import PairModel

STREAMS = ("s1_qqp", "s2_tenants", "s3_zipf", "s4_near_miss", "s5_multiturn")
FLOOR, NEAR, SAMPLE, SEED = 0.6, 5, 11_000, 7
DEVIATION, OF_BIAS, OF_STANDING, FADING = 0.35, 1.0, 0.3, 2e-4
STANDING = {"neighbours_agree": 0.5, "margin": 0.2, "standing": 1.0}
"""Learned in use, from 0 on: their scales."""

Sample = tuple[str, str, float, bool]


def near_pairs(rows: Sequence[Row], vectors: NDArray[np.float32]) -> list[Sample]:
    """(stored, asked, similarity, same answer) of each prompt's nearest earlier ones."""
    scopes: dict[tuple[str, str], list[int]] = {}
    found: list[Sample] = []
    for number, row in enumerate(rows):
        earlier = scopes.setdefault((row.tenant, json.dumps(row.history)), [])
        if earlier:
            similarity = vectors[earlier] @ vectors[number]
            for place in np.argsort(-similarity)[:NEAR]:
                other = rows[earlier[place]]
                if similarity[place] >= FLOOR and other.prompt != row.prompt:
                    same = other.right == row.right
                    found.append((other.prompt, row.prompt, float(similarity[place]), same))
        earlier.append(number)
    return found


def values(samples: Sequence[Sample], model: PairModel | None) -> NDArray[np.float64]:
    """The features of each pair, float64[n, d]."""
    out = []
    for start in range(0, len(samples), 16):
        part = samples[start : start + 16]
        logits = model.logits([(a, b) for a, b, _, _ in part]) if model else [0.0] * len(part)
        for (a, b, similarity, _), logit in zip(part, logits, strict=True):
            evidence = Evidence(similarity, guards.compare(a, b))
            if model:
                evidence = verifier.with_model_score(a, b, evidence, logit)
            out.append(verifier.features(a, b, evidence))
        if start % 8000 == 0:
            say(f"    {start:,} of {len(samples):,}")
    return np.array(out)


def fitted(x: NDArray[np.float64], y: NDArray[np.bool_], w: NDArray[np.float64]) -> dict[str, Any]:
    """Centres, scales, weights and deviations."""
    from sklearn.linear_model import LogisticRegression

    centres, scales = x.mean(axis=0), x.std(axis=0)
    centres[0], scales[0] = 0.0, 1.0
    constant = scales < 1e-9  # what no pair here shows
    scales[constant] = 1.0
    deviations = np.where(constant, 1e-6, DEVIATION)
    deviations[0] = OF_BIAS
    for name, scale in STANDING.items():
        place = verifier.FEATURES.index(name)
        centres[place], scales[place], deviations[place] = 0.0, scale, OF_STANDING
    scaled = (x - centres) / scales
    scaled[:, [verifier.FEATURES.index(name) for name in STANDING]] = 0.0
    model: Any = LogisticRegression(C=1.0, max_iter=1000, fit_intercept=False)
    model.fit(scaled, y, sample_weight=w / w.mean())
    return {
        "centres": centres,
        "scales": scales,
        "weights": np.where(deviations > 1e-5, model.coef_[0], 0.0),
        "deviations": deviations,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data/streams"))
    parser.add_argument("--out", type=Path, default=Path("semcache/verification/prior.py"))
    args = parser.parse_args()
    embedder, rng = Remembering(DefaultEmbedder()), random.Random(SEED)
    samples: list[Sample] = []
    weights: list[float] = []
    for path in [*(args.data / f"{name}.jsonl.gz" for name in STREAMS), SUPPORT]:
        rows = read(path)
        embedder.prepare([row.prompt for row in rows])
        near = near_pairs(rows, embedder.embed([row.prompt for row in rows]))
        weight = len(near) ** 0.5
        near = rng.sample(near, min(SAMPLE, len(near)))
        samples += near
        weights += [weight / len(near)] * len(near)
        say(f"  {path.name}: {len(near):,} pairs")
    y, w = np.array([s[3] for s in samples]), np.array(weights)
    fits = {}
    for name, model in (("WITH_MODEL", PairModel()), ("WITHOUT_MODEL", None)):
        say(name)
        fits[name] = fitted(values(samples, model), y, w)
    args.out.write_text(_source(fits))
    say(f"{args.out} is written")


def _source(fits: dict[str, dict[str, Any]]) -> str:
    lines = [_HEAD]
    for name, fit in fits.items():
        lines.append(f"{name} = Prior(")
        for part, numbers in fit.items():
            said = ", ".join(f"{number:.6g}" for number in numbers)
            lines.append(f"    {part}=({said}),")
        lines.append(f"    fading={FADING},\n)  # fmt: skip")
    return "\n".join(lines) + "\n"


_HEAD = '''"""The shipped priors of the weights, written by `python -m benchmarks.verifier.prior`.

Do not edit: run that module again. Each tuple has one number per entry of `features.FEATURES`.
"""

from __future__ import annotations

from semcache.verification.features import Prior

# ruff: noqa: E501 - numbers
'''


if __name__ == "__main__":
    main()
