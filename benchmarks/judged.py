"""A judge that errs as the default judge was measured to err on answers of real models.

The streams hold no answers: a replay knows only whether two prompts have the same one. Here
each answer gets a kind (a short fact, a sentence or two, a long text), and the verdict on two
answers is drawn from the shares that `benchmarks.judge` measured for that kind. The
verdict on a pair of answers is drawn once: who errs about two answers errs about them again. No
two answers have the same words, as of a model that is not told to repeat itself.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS
from semcache.types import Completion
from semcache.verification.judges import LocalJudge

SEPARATOR = "\x1f"
KINDS = (
    ("short_fact_clean", "short_fact_clean", 0.4),
    ("medium_fact_clean", "medium_fact", 0.4),
    ("long_family", "long_other_prompt", 0.2),
)
"""Where the shares on the same and on different answers come from, and how common the kind is."""


class MeasuredJudge:
    """A `Judge` of answers "tenant, answer id, number" in a replay.

    Args:
        file: a result of `benchmarks.judge`.
    """

    reliability = LocalJudge.reliability

    def __init__(self, file: Path = RESULTS / "judge.json") -> None:
        kinds = json.loads(file.read_text())["kinds"]
        self._kinds = [
            (_shares(kinds[same]["new"], "same"), _shares(kinds[other]["new"], "different"), share)
            for same, other, share in KINDS
        ]

    def judge(self, question: str, stored: Completion, fresh: Completion) -> bool | None:  # noqa: ARG002
        one, other = (answer.text.split(SEPARATOR) for answer in (stored, fresh))
        same = one[:2] == other[:2]
        on_same, on_different, _ = self._kind(SEPARATOR.join(other[:2]))
        # Two wordings of one answer are judged anew; two answers, always alike.
        pair = sorted((stored.text, fresh.text)) if same else sorted(map(str, (one[:2], other[:2])))
        draw = _draw("verdict", *pair)
        true, false = on_same if same else on_different
        return True if draw < true else False if draw < true + false else None

    def _kind(self, answer: str) -> tuple[tuple[float, float], tuple[float, float], float]:
        draw = _draw("kind", answer)
        for kind in self._kinds:
            if draw < kind[2]:
                return kind
            draw -= kind[2]
        return self._kinds[-1]


def _shares(measured: dict[str, Any], what: str) -> tuple[float, float]:
    """The shares of True and False."""
    return measured[f"true_on_{what}"]["share"], measured[f"false_on_{what}"]["share"]


def _draw(*parts: str) -> float:
    """A number in [0, 1) that is always the same for these texts."""
    digest = sha256(SEPARATOR.join(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
