"""Comparisons of answers survive the end of a program, and never break it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from semcache import Completion, LabelEvent
from semcache.types import PendingComparison
from semcache.verification import judge_worker
from semcache.verification.judge_worker import JudgeWorker
from tests.helpers import Heard, open_cache, started

QUESTIONS = ("how do I reset my password", "how do I reset my old password")


class Blocked:
    """A judge that answers only when it is released."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.asked = threading.Event()

    def judge(self, question: str, stored: Completion, fresh: Completion) -> bool | None:
        self.asked.set()
        self.released.wait(30)
        return True


def comparison(number: int) -> PendingComparison:
    answer = Completion("a")
    return PendingComparison("miss", "n", "q", number, answer, answer, None, 0.5, ())


def test_closing_makes_what_waits_and_returns_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the judge manages in time gives verdicts; the rest comes back, in order, without one."""
    verdicts: list[int] = []
    judge = Blocked()
    worker = JudgeWorker(
        judge,
        lambda made, right: verdicts.append(made.entry_id),
        lambda *fault: None,
        in_background=True,
    )
    for number in (1, 2, 3):
        worker.submit(comparison(number))
    assert judge.asked.wait(10)
    monkeypatch.setattr(judge_worker, "CLOSING_TIME", 0.05)
    monkeypatch.setattr(judge_worker, "_STOPPING_TIME", 0.05)
    assert [left.entry_id for left in worker.close()] == [1, 2, 3]
    judge.released.set()
    worker.submit(comparison(4))
    assert verdicts == []

    judge.released.set()
    second = JudgeWorker(
        judge,
        lambda made, right: verdicts.append(made.entry_id),
        lambda *fault: None,
        in_background=True,
    )
    for number in (5, 6):
        second.submit(comparison(number))
    monkeypatch.setattr(judge_worker, "CLOSING_TIME", 10.0)
    assert second.close() == []
    assert verdicts == [5, 6]


def test_the_next_cache_makes_the_comparisons_of_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that ends before its judge has answered still teaches the next one."""
    monkeypatch.setattr(judge_worker, "CLOSING_TIME", 0.05)
    monkeypatch.setattr(judge_worker, "_STOPPING_TIME", 0.05)
    options = {"threshold": None, "max_false_hit_rate": 0.02}
    with open_cache(tmp_path, judge=Blocked(), **options) as cache:
        for question in QUESTIONS:
            cache.record(cache.lookup(question), "Open Settings.")
    labels = Heard()
    with open_cache(tmp_path, hooks=[labels], **options) as cache:
        cache.lookup("how do I reset my new password")
        cache.wait()
        assert [event.right for event in labels.of(LabelEvent)] == [True]
        assert cache.stats().labels == {"miss": 1}


SHORT_PROGRAM = """
    import sys, time
    from tests.helpers import open_cache

    class Slow:
        def judge(self, question, stored, fresh):
            time.sleep(60)

    class Busy:
        def judge(self, question, stored, fresh):
            import numpy
            square = numpy.ones((1500, 1500))
            for _ in range(10_000):
                square @ square

    judge = {"slow": Slow(), "busy": Busy()}[sys.argv[2]]
    cache = open_cache(sys.argv[1], threshold=None, max_false_hit_rate=0.02,
                       judge=judge)
    for question in ("how do I reset my password", "how do I reset my old password"):
        cache.record(cache.lookup(question), "Open Settings.")
"""


@pytest.mark.parametrize("judge", ["slow", "busy"])
def test_a_program_may_end_whatever_its_judge_is_doing(tmp_path: Path, judge: str) -> None:
    """It neither hangs nor aborts, and the comparison is kept."""
    program = started(SHORT_PROGRAM, str(tmp_path), judge)
    program.communicate(timeout=60)
    assert program.returncode == 0
    with open_cache(tmp_path) as cache:
        (kept,) = cache._engine.backend.ledger.take_comparisons(9)
    assert kept.question == QUESTIONS[1]
