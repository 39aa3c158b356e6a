"""A log through the real cache: what each threshold would have saved and served.

What is known and what is not are kept apart. How many calls, tokens and dollars would have
been saved is known. Whether a served answer would have been right is not, unless a person has
said so, or the two answers of the log are the same words. So a false hit rate is given only

- exactly, where every pair that would have been served has been judged;
- as an estimate with its interval, from pairs that were drawn at random to be judged;
- and otherwise as what is sure: at least the pairs judged wrong, at most those and all that
  nobody has judged. Pairs shown most doubtful first are no random ones.
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
from semcache.options import Calls
from semcache.router.prices import priced
from semcache.semantic_cache import SemanticCache
from semcache.telemetry.intervals import wilson
from semcache.tools.logs import Call
from semcache.types import Usage

if TYPE_CHECKING:
    from semcache.embedders.base import Embedder

THRESHOLDS = (0.80, 0.85, 0.90, 0.95, 0.98)
Verdict = Literal["right", "wrong"]
_LISTS = {
    "gpt": "openai",
    "o1": "openai",
    "o3": "openai",
    "o4": "openai",
    "claude": "anthropic",
    "gemini": "google",
}


@dataclass(frozen=True, slots=True)
class Pair:
    """A question of the log and the stored one whose answer it would have been served.

    Attributes:
        key: the same for the same two questions and answers, in any run.
        doubt: how far the two answers lie apart (1 - cosine), in [0, 2]; more is more doubtful.
        same: the two answers are the same words.
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
        return _smoothed(self.answer) == _smoothed(self.stored_answer)


@dataclass(frozen=True, slots=True)
class Saved:
    """What one threshold would have saved.

    Attributes:
        calls: of the log. exact, semantic: hits.
        tokens, usd: of the calls that would not have been made; usd is None if no price is known.
        unpriced: hits whose cost is not known.
        pairs: keys of the pairs that would have been served.
    """

    threshold: float
    calls: int
    exact: int
    semantic: int
    tokens: int
    usd: float | None
    unpriced: int
    pairs: tuple[str, ...]

    @property
    def hit_rate(self) -> float:
        """Served / calls."""
        return (self.exact + self.semantic) / self.calls if self.calls else 0.0


@dataclass(frozen=True, slots=True)
class Known:
    """What can be said of a threshold's false hit rate.

    Attributes:
        served, judged, wrong: pairs.
        how: "all judged", "estimated from a random sample", "bounded", or "nothing served".
        rate: the rate, or its estimate; None where it is only bounded.
        low, high: the 95% interval of an estimate, or the bounds.
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
    """What a person said of a pair, and whether the pair had been drawn at random."""

    verdict: Verdict
    random: bool


def try_thresholds(
    calls: Sequence[Call],
    embedder: Embedder,
    thresholds: Sequence[float] = THRESHOLDS,
    progress: Callable[[int, int], object] | None = None,
) -> tuple[list[Saved], dict[str, Pair]]:
    """(what each threshold would have saved, all pairs that any would have served)."""
    saved, pairs = [], {}
    for place, threshold in enumerate(sorted(thresholds)):
        one, found = _try(calls, embedder, threshold)
        saved.append(one)
        pairs.update(found)
        if progress is not None:
            progress(place + 1, len(thresholds))
    return saved, pairs


def _try(
    calls: Sequence[Call], embedder: Embedder, threshold: float
) -> tuple[Saved, dict[str, Pair]]:
    now = 0.0
    exact, tokens, unpriced = 0, 0, 0
    usd: float | None = None
    served: list[tuple[Call, str, str, float]] = []
    with (
        tempfile.TemporaryDirectory(prefix="semcache-replay-") as directory,
        SemanticCache(
            directory,
            threshold=threshold,
            embedder=embedder,
            hooks=(),
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
    one = Saved(threshold, len(calls), exact, len(served), tokens, usd, unpriced, keys)
    return one, {pair.key: pair for pair in pairs}


def _pairs(served: Sequence[tuple[Call, str, str, float]], embedder: Embedder) -> list[Pair]:
    found = []
    for call, stored_question, stored_answer, similarity in served:
        question = call.request.messages[-1]
        text = "\n".join(getattr(part, "text", "") for part in question.parts)
        answer = call.completion.text
        one, two = embedder.embed([answer[:1000] or " ", stored_answer[:1000] or " "])
        found.append(
            Pair(
                _key(call.request.namespace, text, stored_question, answer, stored_answer),
                text,
                stored_question,
                similarity,
                answer,
                stored_answer,
                call.request.namespace,
                max(0.0, 1.0 - float(one @ two)),
            )
        )
    return found


def known(saved: Saved, pairs: Mapping[str, Pair], labels: Mapping[str, Label]) -> Known:
    """What labels say of a threshold. Answers of the same words count as judged right."""
    served = len(saved.pairs)
    if not served:
        return Known(0, 0, 0, "nothing served", None, None, None)
    settled = [key for key in saved.pairs if pairs[key].same]
    open_ones = [key for key in saved.pairs if not pairs[key].same]
    judged = [labels[key] for key in open_ones if key in labels]
    wrong = sum(label.verdict == "wrong" for label in judged)
    count = len(settled) + len(judged)
    if count == served:
        low, high = wilson(wrong, served) or (None, None)
        return Known(served, count, wrong, "all judged", wrong / served, low, high)
    drawn = [label for label in judged if label.random]
    if drawn:
        bad = sum(label.verdict == "wrong" for label in drawn)
        share = len(open_ones) / served  # the others are known to be right
        low, high = wilson(bad, len(drawn)) or (0.0, 1.0)
        rate = bad / len(drawn) * share
        return Known(
            served, count, wrong, "estimated from a random sample", rate, low * share, high * share
        )
    unknown = len(open_ones) - len(judged)
    return Known(served, count, wrong, "bounded", None, wrong / served, (wrong + unknown) / served)


class Labels:
    """Labels in a file beside the log, kept as they are given."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.given: dict[str, Label] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                value = json.loads(line)
                self.given[value["key"]] = Label(value["verdict"], bool(value.get("random")))

    def add(self, pair: Pair, label: Label) -> None:
        """Keep a label; the last one given for a pair holds."""
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
    """Those whose answers lie farthest apart first; answers of the same words are left out."""
    return sorted((p for p in pairs if not p.same), key=lambda p: (-p.doubt, p.key))


def _priced(call: Call) -> Usage:
    model = call.completion.model or call.request.model
    bare = model.rsplit("/", 1)[-1]
    listed = next((name for start, name in _LISTS.items() if bare.startswith(start)), None)
    return priced(call.completion.usage, model=bare, price_list=listed)


def _key(*texts: str) -> str:
    return hashlib.sha256("\x1f".join(texts).encode()).hexdigest()[:20]


def _smoothed(text: str) -> str:
    return " ".join(text.lower().split())
