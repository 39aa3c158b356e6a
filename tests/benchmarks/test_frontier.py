"""Hits with a threshold chosen with hindsight, and a judge that errs as measured."""

from __future__ import annotations

from benchmarks.frontier import Ranked, hits
from benchmarks.judged import SEPARATOR, MeasuredJudge
from semcache import Completion


def test_hits_are_the_right_answers_above_the_best_threshold() -> None:
    """The threshold may lie below a wrong answer, if enough right ones follow."""
    assert counted([at != 10 for at in range(100)]) == {"0.02": 99, "0.05": 99, "0.1": 99}
    assert counted([False, True, True]) == {"0.02": 0, "0.05": 0, "0.1": 0}
    assert counted([]) == {"0.02": 0, "0.05": 0, "0.1": 0}


def counted(right: list[bool]) -> dict[str, int]:
    return hits([Ranked(-float(at), at, good) for at, good in enumerate(right)])


def answer(tenant: str, name: str, number: int) -> Completion:
    return Completion(SEPARATOR.join((tenant, name, str(number))))


def test_the_measured_judge_repeats_itself() -> None:
    """The same pair gets the same verdict; all three verdicts occur, and most are right."""
    judge = MeasuredJudge()
    same = [judge.judge("q", answer("t", f"{i}", 1), answer("t", f"{i}", 2)) for i in range(300)]
    other = [
        judge.judge("q", answer("t", f"{i}", 1), answer("t", f"{i + 1}", 2)) for i in range(300)
    ]
    assert same == [
        judge.judge("q", answer("t", f"{i}", 1), answer("t", f"{i}", 2)) for i in range(300)
    ]
    assert set(same) == set(other) == {True, False, None}
    assert same.count(True) > 5 * same.count(False)
    assert other.count(False) > 2 * other.count(True)
    wording = [judge.judge("q", answer("t", "a", 1), answer("t", "b", i)) for i in range(50)]
    assert len(set(wording)) == 1, "two answers are judged alike, however they are worded"
