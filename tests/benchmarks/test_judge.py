"""The benchmark of judges: who is measured on what, and what is counted."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from benchmarks import judge
from semcache.types import Completion


class Says:
    """Says what the stored answer says."""

    def judge(self, question: str, stored: Completion, fresh: Completion) -> bool | None:
        return {"yes": True, "no": False}.get(stored.text)


def pair(stored: str, same: bool, question: str = "q") -> judge.Pair:
    return judge.Pair("short_fact", question, question, stored, "x", same, "")


def test_shares_count_every_pair_once() -> None:
    """Wrong labels are a share of the verdicts, the rest a share of the pairs."""
    pairs = [pair("yes", True), pair("no", True), pair("yes", False), pair("", False)]
    shares, seconds = judge.measure(Says(), pairs)
    counted = {name: (figure["count"], figure["of"]) for name, figure in shares.items()}
    assert counted == {
        "true_on_same": (1, 2),
        "false_on_same": (1, 2),
        "true_on_different": (1, 2),
        "false_on_different": (0, 2),
        "labels_wrong": (2, 3),
        "unsure": (1, 4),
    }
    assert len(seconds) == 4
    low, high = shares["labels_wrong"]["interval"]
    assert low < 2 / 3 < high


def test_no_pair_is_measured_whose_question_was_fitted_to(tmp_path: Path) -> None:
    """A pair of two questions is left out where either is in the fitting part."""
    questions = [f"question {number}?" for number in range(200)]
    fitting = [question for question in questions if judge.is_fitting(question)]
    assert 90 < len(fitting) < 150
    row = {"stored": "a", "fresh": "b", "same": True, "source": "s"}
    rows = [
        {**row, "question_asked": asked, "question_stored": stored}
        for asked, stored in zip(questions, questions[1:], strict=False)
    ]
    with gzip.open(tmp_path / "nq301.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    (measured,) = judge.measured_pairs(tmp_path, every=False).values()
    assert 0 < len(measured) < len(rows)
    assert not {p.question for p in measured} & set(fitting)
    assert not {p.of_stored for p in measured} & set(fitting)
    assert len(judge.measured_pairs(tmp_path, every=True)["nq301"]) == len(rows)


def test_a_known_answer_confirms_a_label() -> None:
    """Both texts contain it: same; one does: different; else the label stands alone."""
    known = {"q": {"paris"}}

    def confirmed(stored: str, fresh: str, same: bool) -> bool:
        return judge.confirmed(judge.Pair("k", "q", "q", stored, fresh, same, ""), known)

    assert confirmed("In Paris.", "Paris", True)
    assert confirmed("In Paris.", "Rome", False)
    assert not confirmed("In Paris.", "Rome", True)
    assert not confirmed("Rome", "Milan", False)
