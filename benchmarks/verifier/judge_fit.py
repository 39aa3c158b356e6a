"""Fit the weights of the local judge, and write semcache/verification/answer_weights.py.

    python -m benchmarks.verifier.judge_fit [--data ../shared/data/judge]

Logistic regression over the features of pairs of real answers that people labelled, of the
kinds whose licence allows it. Only the fitting part of the questions is read (`is_fitting`);
`benchmarks.judge` measures on the rest.
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

import numpy as np

from benchmarks.common import say
from benchmarks.judge import DATA, Pair, is_fitting, read_pairs
from semcache.verification.answer_comparison import FEATURES, compare_answers, features
from semcache.verification.answers import read_answer, read_question

KINDS = {
    "short_fact": 1.0,
    "medium_fact": 1.5,
    "span_sentence": 0.7,
    "near_question": 6.0,
    "nq301": 0.7,
}
"""Weight of a pair of each kind: the small kinds must not drown."""
INVERSE_PENALTY = 0.3
OUT = Path("semcache/verification/answer_weights.py")
TEMPLATE = '''"""Weights of the model that compares two answers.

Written by `python -m benchmarks.verifier.judge_fit`: do not edit.
"""

from __future__ import annotations

BIAS = {bias}
WEIGHTS: tuple[float, ...] = (
{rows}
)
"""In the order of `answer_comparison.FEATURES`."""
'''


def values(pair: Pair) -> tuple[float, ...]:
    """The features of one pair."""
    question = read_question(pair.question)
    one, other = read_answer(pair.stored, question), read_answer(pair.fresh, question)
    return features(compare_answers(question, one, other))


def fit(pairs: list[Pair]) -> tuple[float, list[float]]:
    """(bias, weights) for features as they are."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    x = scaler.fit_transform(np.array([values(pair) for pair in pairs]))
    model = LogisticRegression(C=INVERSE_PENALTY, max_iter=2000)
    weighing = [KINDS[pair.kind] for pair in pairs]
    model.fit(x, [pair.same for pair in pairs], sample_weight=weighing)
    weights = model.coef_[0] / scaler.scale_
    return float(model.intercept_[0] - weights @ scaler.mean_), [float(w) for w in weights]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA)
    args = parser.parse_args()
    pairs = [p for kind in KINDS for p in read_pairs(args.data, kind) if is_fitting(p.question)]
    bias, weights = fit(pairs)
    rows = [f"    {w:.4f},  # {name}" for w, name in zip(weights, FEATURES, strict=True)]
    OUT.write_text(TEMPLATE.format(bias=f"{bias:.4f}", rows="\n".join(rows)))
    subprocess.run(["ruff", "format", "-q", str(OUT)], check=False)
    say(f"fitted to {len(pairs)} pairs; wrote {OUT}")


if __name__ == "__main__":
    main()
