"""Replays a log through a real cache: what each threshold would have saved and served.

The replay shows how many calls, tokens and dollars would have been saved. It cannot show
whether a served answer would have been right, unless a person has judged the pair or the two
logged answers have the same wording. So the false hit rate is reported as

- an exact value, if every pair that would have been served has been judged;
- an estimate with its interval, if some pairs were drawn at random to be judged;
- otherwise bounds: at least the pairs judged wrong, at most those plus all that nobody has
  judged. (Pairs that were judged because they looked most doubtful are not a random sample.)
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from semcache.backends import LocalOptions
from semcache.options import Calls, Trust
from semcache.router.prices import priced
from semcache.semantic_cache import SemanticCache
from semcache.telemetry.intervals import wilson
from semcache.tools.logs import Call
from semcache.types import Usage

if TYPE_CHECKING:
    from semcache.embedders.base import Embedder

THRESHOLDS = (0.80, 0.85, 0.90, 0.95, 0.98)
Verdict = Literal["right", "wrong"]
_PRICE_LISTS = {
    "gpt": "openai",
    "o1": "openai",
    "o3": "openai",
    "o4": "openai",
    "claude": "anthropic",
    "gemini": "google",
}


@dataclass(frozen=True, slots=True)
class Pair:
    """A logged question, and the stored question whose answer it would have been served.

    Attributes:
        key: identifies the two questions and answers; the same in every run.
        similarity: cosine of the two questions.
        doubt: how much the two answers differ (1 - cosine), in [0, 2]; larger is more doubtful.
    """

    key: str
    question: str
    stored_question: str
    similarity: float
    answer: str
    stored_answer: str
    namespace: str
    doubt: float

    @property
    def same(self) -> bool:
        """Whether the two answers have the same wording, ignoring case and white space."""
        return _normalised(self.answer) == _normalised(self.stored_answer)


@dataclass(frozen=True, slots=True)
class Saved:
    """What one threshold, or semcache's own policy, would have saved.

    Attributes:
        threshold: the threshold; None for semcache's own policy.
        max_false_hit_rate: the bound of semcache's own policy; None for a threshold.
        calls: number of calls in the log.
        exact: number of exact hits.
        semantic: number of semantic hits.
        tokens: tokens of the calls that would have been saved.
        usd: cost of those calls in USD; None if no price is known.
        unpriced: number of hits whose cost is unknown.
        pairs: keys of the pairs that would have been served.
    """

    threshold: float | None
    calls: int
    exact: int
    semantic: int
    tokens: int
    usd: float | None
    unpriced: int
    pairs: tuple[str, ...]
    max_false_hit_rate: float | None = None

    @property
    def name(self) -> str:
        """The policy, in words."""
        if self.max_false_hit_rate is not None:
            return f"semcache, {self.max_false_hit_rate:.0%}"
        return f"{self.threshold:g}"

    @property
    def hit_rate(self) -> float:
        """Hits / calls."""
        return (self.exact + self.semantic) / self.calls if self.calls else 0.0


@dataclass(frozen=True, slots=True)
class Known:
    """What is known about a threshold's false hit rate.

    Attributes:
        served: number of pairs that would have been served.
        judged: number of those that were judged or have answers of the same wording.
        wrong: number of pairs judged wrong.
        how: "all judged", "estimated from a random sample", "bounded", or "nothing served".
        rate: the false hit rate or its estimate; None if only bounds are known.
        low: lower end of the 95% interval, or the lower bound.
        high: upper end of the 95% interval, or the upper bound.
    """

    served: int
    judged: int
    wrong: int
    how: str
    rate: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Label:
    """A person's verdict on a pair, and whether the pair was drawn at random."""

    verdict: Verdict
    random: bool


def try_thresholds(
    calls: Sequence[Call],
    embedder: Embedder,
    thresholds: Sequence[float] = THRESHOLDS,
    *,
    bound: float | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> tuple[list[Saved], dict[str, Pair]]:
    """Replay the log at each threshold.

    Args:
        bound: also replay it under semcache's own policy, with this bound, which learns from the
            answers of the log as it goes.
        progress: called with the number of policies done and the total.

    Returns:
        What each would have saved, semcache's policy first and then by threshold, and all pairs
        that any of them would have served, by key.
    """
    saved, pairs = [], {}
    policies: list[tuple[float | None, float | None]] = [(t, None) for t in sorted(thresholds)]
    if bound is not None:
        policies.insert(0, (None, bound))
    for done, policy in enumerate(policies, 1):
        result, served = _replay(calls, embedder, *policy)
        saved.append(result)
        pairs.update(served)
        if progress is not None:
            progress(done, len(policies))
    return saved, pairs


def _replay(
    calls: Sequence[Call], embedder: Embedder, threshold: float | None, bound: float | None
) -> tuple[Saved, dict[str, Pair]]:
    learns = bound is not None and all(call.answered for call in calls)
    now = 0.0
    exact, tokens, unpriced = 0, 0, 0
    usd: float | None = None
    served: list[tuple[Call, str, str, float]] = []
    with (
        tempfile.TemporaryDirectory(prefix="semcache-replay-") as directory,
        SemanticCache(
            directory,
            threshold=threshold,
            max_false_hit_rate=bound,
            judge="local" if learns else None,
            embedder=embedder,
            hooks=(),
            trust=Trust(judge_in_background=False),
            calls=Calls(clock=lambda: now),
            backend=LocalOptions(index_in_background=False),
        ) as cache,
    ):
        for call in calls:
            now = max(now, call.at or now)
            lookup = cache.lookup(call.request)
            entry = lookup.entry
            if entry is None:
                cache.record(lookup, call.completion)
                continue
            usage = _priced(call)
            tokens += (usage.prompt_tokens or 0) + (usage.completion_tokens or 0)
            if usage.cost_usd is None:
                unpriced += 1
            else:
                usd = (usd or 0.0) + usage.cost_usd
            if lookup.tier == "exact":
                exact += 1
            else:
                assert lookup.similarity is not None
                served.append(
                    (call, entry.question or "", entry.completion.text, lookup.similarity)
                )
    pairs = _pairs(served, embedder)
    keys = tuple(pair.key for pair in pairs)
    saved = Saved(threshold, len(calls), exact, len(served), tokens, usd, unpriced, keys, bound)
    return saved, {pair.key: pair for pair in pairs}


def _pairs(served: Sequence[tuple[Call, str, str, float]], embedder: Embedder) -> list[Pair]:
    pairs = []
    for call, stored_question, stored_answer, similarity in served:
        question = call.request.messages[-1]
        text = "\n".join(getattr(part, "text", "") for part in question.parts)
        answer = call.completion.text
        new, stored = embedder.embed([answer[:1000] or " ", stored_answer[:1000] or " "])
        pairs.append(
            Pair(
                _key(call.request.namespace, text, stored_question, answer, stored_answer),
                text,
                stored_question,
                similarity,
                answer,
                stored_answer,
                call.request.namespace,
                max(0.0, 1.0 - float(new @ stored)),
            )
        )
    return pairs


def known(saved: Saved, pairs: Mapping[str, Pair], labels: Mapping[str, Label]) -> Known:
    """The false hit rate of a threshold, as far as the labels determine it.

    Pairs whose answers have the same wording count as judged right.
    """
    served = len(saved.pairs)
    if not served:
        return Known(0, 0, 0, "nothing served", None, None, None)
    settled = [key for key in saved.pairs if pairs[key].same]
    unsettled = [key for key in saved.pairs if not pairs[key].same]
    judged = [labels[key] for key in unsettled if key in labels]
    wrong = sum(label.verdict == "wrong" for label in judged)
    count = len(settled) + len(judged)
    if count == served:
        low, high = wilson(wrong, served) or (None, None)
        return Known(served, count, wrong, "all judged", wrong / served, low, high)
    sample = [label for label in judged if label.random]
    if sample:
        bad = sum(label.verdict == "wrong" for label in sample)
        share = len(unsettled) / served  # pairs with the same wording are right
        low, high = wilson(bad, len(sample)) or (0.0, 1.0)
        rate = bad / len(sample) * share
        return Known(
            served, count, wrong, "estimated from a random sample", rate, low * share, high * share
        )
    unknown = len(unsettled) - len(judged)
    return Known(served, count, wrong, "bounded", None, wrong / served, (wrong + unknown) / served)


class Labels:
    """Labels, appended to a JSON Lines file beside the log as they are given.

    Attributes:
        given: the latest label of each pair, by the pair's key.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.given: dict[str, Label] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                value = json.loads(line)
                self.given[value["key"]] = Label(value["verdict"], bool(value.get("random")))

    def add(self, pair: Pair, label: Label) -> None:
        """Save a label; it replaces an earlier label of the same pair."""
        self.given[pair.key] = label
        row = {
            "key": pair.key,
            "verdict": label.verdict,
            "random": label.random,
            "question": pair.question,
            "stored_question": pair.stored_question,
            "similarity": round(pair.similarity, 6),
        }
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def most_doubtful(pairs: Iterable[Pair]) -> list[Pair]:
    """Sort by how much the two answers differ, most first; drop pairs with the same wording."""
    return sorted((p for p in pairs if not p.same), key=lambda p: (-p.doubt, p.key))


def _priced(call: Call) -> Usage:
    model = call.completion.model or call.request.model
    base_name = model.rsplit("/", 1)[-1]
    listed = next(
        (name for start, name in _PRICE_LISTS.items() if base_name.startswith(start)), None
    )
    return priced(call.completion.usage, model=base_name, price_list=listed)


def _key(*texts: str) -> str:
    return hashlib.sha256("\x1f".join(texts).encode()).hexdigest()[:20]


def _normalised(text: str) -> str:
    return " ".join(text.lower().split())
