"""The demo: a day at two support desks, run through a real cache.

The stream is 667 questions from customers of two fictional companies, written for this project:
popular questions asked again and again in different words, one-off questions, follow-ups that make
sense only in their conversation, near-misses (a different number, name, direction or condition),
and questions to both companies, whose answers differ. The embedder, FAISS and SQLite are real.
Misses are answered by the *offline answerer*, a table of the correct answers, not by a language
model.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any

from semcache.engine.explain import Explanation
from semcache.semantic_cache import SemanticCache
from semcache.types import Completion, Decision, Explore, Hit, Lookup, Miss

MODEL = "offline-answerer"
FIXED_THRESHOLDS = (0.85, 0.90, 0.95)
"""The thresholds that the demo compares with."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question of the stream, with its correct answer."""

    tenant: str
    prompt: str
    history: tuple[dict[str, str], ...]
    answer_id: str
    kind: str
    answer: str

    @property
    def call(self) -> dict[str, Any]:
        """Keyword arguments of the cache call."""
        messages = [*self.history, {"role": "user", "content": self.prompt}]
        return {"messages": messages, "namespace": self.tenant, "model": MODEL}


@dataclass(frozen=True, slots=True)
class Example:
    """A question, with what `explain` reported just before the lookup.

    Attributes:
        right: whether the served answer was correct; None if none was served.
    """

    question: Question
    explanation: Explanation
    right: bool | None


@dataclass(slots=True)
class Half:
    """Semantic hits in one half of the stream, and how many of them were wrong."""

    semantic_hits: int = 0
    wrong: int = 0


@dataclass(slots=True)
class Outcome:
    """Totals over the stream.

    Attributes:
        results: number of questions by result: "exact", "semantic", "miss" or "explore".
        wrong: number of wrong answers served, by kind of question.
        across_tenants: number of answers served from another tenant's entries.
        repeated: questions whose answer was already stored; a perfect cache would serve these.
        exact_repeats: those of them that were asked in the same words before.
        halves: the semantic hits of the first and the second half.
        seconds: durations of the lookups, by result, and of storing answers (key "record").
        examples: the questions with their explanations, if they were asked for.
    """

    questions: int = 0
    results: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    across_tenants: int = 0
    repeated: int = 0
    exact_repeats: int = 0
    halves: tuple[Half, Half] = field(default_factory=lambda: (Half(), Half()))
    seconds: dict[str, list[float]] = field(default_factory=dict)
    examples: list[Example] = field(default_factory=list)

    @property
    def semantic_hits(self) -> int:
        return self.results["semantic"]

    @property
    def wrong_semantic_hits(self) -> int:
        return sum(half.wrong for half in self.halves)

    @property
    def calls_saved(self) -> int:
        return self.results["exact"] + self.results["semantic"]

    def median_ms(self, what: str) -> float | None:
        """The median duration in milliseconds; None if there were no such calls."""
        return median(self.seconds[what]) * 1e3 if self.seconds.get(what) else None


def questions(folder: Path | None = None) -> list[Question]:
    """The stream, in order of arrival.

    Args:
        folder: a folder with another stream in the same format; by default, the shipped stream.
    """
    data = files("semcache.tools") / "demo_data" if folder is None else folder
    answers = json.loads((data / "answers.json").read_text(encoding="utf-8"))
    rows = map(json.loads, (data / "stream.jsonl").read_text(encoding="utf-8").splitlines())
    return [
        Question(
            row["tenant"],
            row["prompt"],
            tuple(row.get("history", ())),
            row["answer_id"],
            row["kind"],
            answers[row["answer_id"]],
        )
        for row in rows
    ]


def run(
    cache: SemanticCache, stream: list[Question], *, explain: bool = False
) -> Iterator[Outcome]:
    """Ask every question in turn; yield the totals so far after each.

    Args:
        explain: keep an explanation of each decision.
    """
    outcome = Outcome()
    answered: dict[str, str] = {}
    asked: set[tuple[str, str, str]] = set()
    for question in stream:
        explanation = cache.explain(k=3, **question.call) if explain else None
        lookup = _timed(outcome, lambda q=question: cache.lookup(**q.call))  # type: ignore[misc]
        outcome.questions += 1
        outcome.repeated += question.answer_id in answered.values()
        words = (question.tenant, json.dumps(question.history), question.prompt)
        outcome.exact_repeats += words in asked
        asked.add(words)
        right = None
        if lookup.completion is None:
            _record(cache, outcome, lookup, question)
        else:
            right = lookup.completion.text == question.answer
            outcome.wrong[question.kind] += not right
            outcome.across_tenants += not _same_tenant(answered, lookup.completion, question)
        if lookup.tier == "semantic":
            half = outcome.halves[2 * outcome.questions > len(stream)]
            half.semantic_hits += 1
            half.wrong += right is False
        answered[question.answer] = question.answer_id
        if explanation is not None:
            outcome.examples.append(Example(question, explanation, right))
        yield outcome


def _timed(outcome: Outcome, look_up: Callable[[], Lookup]) -> Lookup:
    start = time.perf_counter()
    lookup = look_up()
    result = lookup.tier or ("explore" if isinstance(lookup.decision, Explore) else "miss")
    outcome.seconds.setdefault(result, []).append(time.perf_counter() - start)
    outcome.results[result] += 1
    return lookup


def _record(cache: SemanticCache, outcome: Outcome, lookup: Lookup, question: Question) -> None:
    start = time.perf_counter()
    cache.record(lookup, question.answer)
    outcome.seconds.setdefault("record", []).append(time.perf_counter() - start)


def _same_tenant(answered: dict[str, str], completion: Completion, question: Question) -> bool:
    return answered.get(completion.text, "").startswith(question.tenant + "/")


def choose_examples(outcome: Outcome) -> list[tuple[str, Example]]:
    """Up to three instructive questions, each with a title."""
    served = [e for e in outcome.examples if isinstance(e.explanation.decision, Hit)]
    by_similarity = sorted((e for e in served if e.explanation.tier == "semantic"), key=_similarity)
    near = [e for e in outcome.examples if e.question.kind in ("trap", "near_miss")]
    missed = (e for e in near if e.right is None and e.explanation.neighbours)
    refused = sorted(missed, key=lambda e: (_refused(e.explanation.decision), _similarity(e)))
    wrong = [e for e in by_similarity if e.right is False]
    picked = [
        ("a paraphrase, served", next((e for e in by_similarity if e.right), None)),
        ("a near-miss, not served", refused[-1] if refused else None),
        ("a wrong answer that was served", wrong[-1] if wrong else None),
    ]
    return [(title, example) for title, example in picked if example is not None]


def _refused(decision: Decision) -> bool:
    return isinstance(decision, Miss) and decision.reason == "refused"


def _similarity(example: Example) -> float:
    neighbours = example.explanation.neighbours
    return neighbours[0].similarity if neighbours else -1.0
