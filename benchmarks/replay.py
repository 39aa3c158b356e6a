"""Streams through the real cache: real embedder, FAISS, SQLite, scopes, clock.

A prompt's answer is its `answer_id`, so that what was served tells whether it was right.
Texts are embedded once, whatever number of policies is replayed over them.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.common import say
from benchmarks.judged import SEPARATOR, MeasuredJudge
from benchmarks.metrics import Outcome
from benchmarks.policies import Bound, Learner
from benchmarks.streams import Row
from semcache import SemanticCache
from semcache.embedders.base import Embedder
from semcache.options import grouped
from semcache.types import Candidate, Explore, Lookup
from semcache.verification.base import Verifier
from semcache.verification.pair_model import PairModel

if TYPE_CHECKING:
    from semcache.types import Vector

Erring = Callable[[bool, random.Random], bool | None]
"""What is made of a true label."""


class Remembering:
    """An embedder that has embedded a stream's texts before.

    Args:
        cut: what is embedded of a text; all of it by default.
    """

    def __init__(self, inner: Embedder, cut: Callable[[str], str] | None = None) -> None:
        self._inner = inner
        self._cut = cut
        self._known: dict[str, Vector] = {}
        self.fingerprint, self.dimension = inner.fingerprint, inner.dimension
        self.window, self.local = inner.window, inner.local

    def load(self) -> None:
        self._inner.load()

    def count_tokens(self, text: str) -> int:
        return self._inner.count_tokens(text)

    def embed(self, texts: Sequence[str]) -> Vector:
        missing = [text for text in texts if text not in self._known]
        if missing:
            self._remember(missing)
        return np.stack([self._known[text] for text in texts])

    def again(self, text: str) -> Vector:
        """Embed a text although it is known, to see how long that takes."""
        return self._inner.embed([text])

    def prepare(self, texts: Sequence[str], batch: int = 256) -> None:
        """Embed texts ahead, saying how far it has come."""
        wanted = list(dict.fromkeys(text for text in texts if text not in self._known))
        for start in range(0, len(wanted), batch):
            self._remember(wanted[start : start + batch])
            if start % (batch * 16) == 0:
                say(f"  embedded {min(start + batch, len(wanted)):,} of {len(wanted):,}")

    def _remember(self, texts: Sequence[str]) -> None:
        given = texts if self._cut is None else [self._cut(text) for text in texts]
        for text, vector in zip(texts, self._inner.embed(given), strict=True):
            self._known[text] = vector


class RememberingVerifier:
    """A pair model that has looked at a pair before; the same numbers, sooner."""

    def __init__(self, inner: Verifier) -> None:
        self._inner = inner
        self.highest_logit = getattr(inner, "highest_logit", None)
        self._known: dict[tuple[str, str], float] = {}
        self.asked = 0

    def load(self) -> None:
        self._inner.load()

    def logits(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        self.asked += len(pairs)
        missing = [pair for pair in pairs if pair not in self._known]
        if missing:
            self._known |= dict(zip(missing, self._inner.logits(missing), strict=True))
        return [self._known[pair] for pair in pairs]


def cut_at(tokenizer: Any, tokens: int) -> Callable[[str], str]:
    """Texts cut after so many tokens, those that mark beginning and end included."""

    def cut(text: str) -> str:
        found = tokenizer.encode(text)
        return text if len(found.ids) <= tokens else text[: found.offsets[tokens - 2][1]]

    return cut


@dataclass(frozen=True, slots=True)
class Way:
    """How a stream is replayed.

    Attributes:
        last_message_only: without the conversation before the prompt.
        exact_search: no approximate index, however large a scope grows.
        options: of the cache (ttl, max_entries, ...).
        seed: of the policy's draws.
    """

    last_message_only: bool = False
    exact_search: bool = False
    options: tuple[tuple[str, Any], ...] = ()
    seed: int = 7


def replay(
    rows: Sequence[Row],
    policy: Learner | Bound,
    embedder: Embedder,
    way: Way = Way(),
    *,
    warm: Sequence[Row] = (),
    judge: Erring | MeasuredJudge | None = None,
    directory: Path | None = None,
    verifier: Verifier | None = None,
) -> list[Outcome]:
    """Put a stream through a cache, in order; equal arguments give equal outcomes.

    Args:
        warm: another stream, replayed before; it is not in the outcomes.
        judge: what is made of a true label (a judge may err, or be unsure), or a judge of its own;
            by default the label.
        directory: for the cache's files; by default a temporary one.
        verifier: instead of a pair model of its own, for `Bound`.
    """
    with tempfile.TemporaryDirectory(prefix="semcache-replay-") as temporary:
        player = _Player(
            directory or Path(temporary), policy, embedder, way, judge, verifier or PairModel()
        )
        try:
            player.play(warm)
            return player.play(rows)
        finally:
            player.close()


class _Player:
    def __init__(
        self,
        directory: Path,
        policy: Learner | Bound,
        embedder: Embedder,
        way: Way,
        judge: Erring | MeasuredJudge | None,
        verifier: Verifier,
    ) -> None:
        self._now = 1_000_000.0
        self._random = random.Random(way.seed)
        self._judging = random.Random(way.seed + 1)
        self._judge = None if isinstance(judge, MeasuredJudge) else judge
        self._worded = isinstance(judge, MeasuredJudge)
        self._answers = 0
        self._policy = policy
        self._way = way
        self._known: set[tuple[str, str]] = set()
        decides: dict[str, Any] = {"policy": policy}
        if isinstance(policy, Bound):
            decides = {
                "max_false_hit_rate": policy.max_false_hit_rate,
                "judge": judge if isinstance(judge, MeasuredJudge) else self._compare,
                "judge_in_background": False,
                "verifier": verifier,
            }
        given = {
            **decides,
            "embedder": embedder,
            "clock": lambda: self._now,
            "draw": self._random.random,
            "exact_below": 10**9 if way.exact_search else None,
            "index_in_background": False,
            "hooks": (),
            **dict(way.options),
        }
        self._cache = SemanticCache(directory, **grouped(given))

    def play(self, rows: Sequence[Row]) -> list[Outcome]:
        start = self._now
        outcomes = []
        for row in rows:
            self._now = self._now + 1e-3 if row.at is None else start + row.at
            outcomes.append(self._one(row))
            self._known.add(row.right)
        return outcomes

    def close(self) -> None:
        self._cache.close()

    def _one(self, row: Row) -> Outcome:
        history = () if self._way.last_message_only else row.history
        messages = [*history, {"role": "user", "content": row.prompt}]
        lookup = self._cache.lookup(messages=messages, namespace=row.tenant)
        known = row.right in self._known
        if lookup.entry is not None:
            tenant, answer = lookup.entry.completion.text.split(SEPARATOR)[:2]
            right = (tenant, answer) == row.right
            assert lookup.tier is not None
            return Outcome(
                row.kind,
                lookup.tier,
                right,
                tenant != row.tenant,
                known,
                lookup.similarity,
                right,
                reason=lookup.decision.reason if not isinstance(lookup.decision, Explore) else "",
            )
        return self._asked(row, lookup, known)

    def _compare(self, question: str, stored: str, fresh: str) -> bool | None:  # noqa: ARG002
        """What a judge would say of a stored and a fresh answer."""
        right = stored == fresh
        return right if self._judge is None else self._judge(right, self._judging)

    def _asked(self, row: Row, lookup: Lookup, known: bool) -> Outcome:
        """The model was asked: its answer is kept, and may be a label."""
        decision = lookup.decision
        answer = meant = f"{row.tenant}{SEPARATOR}{row.answer_id}"
        if self._worded:
            self._answers += 1
            answer += f"{SEPARATOR}{self._answers}"
        if not isinstance(decision, Explore):
            self._cache.record(lookup, answer)
            return Outcome(
                row.kind,
                "miss",
                known=known,
                similarity=lookup.similarity,
                reason=decision.reason,
            )
        candidate = decision.candidate
        right = SEPARATOR.join(candidate.entry.completion.text.split(SEPARATOR)[:2]) == meant
        if isinstance(self._policy, Bound):
            self._cache.record(lookup, answer)  # and so the cache learns of it
            return self._explored(row, candidate, known, right, decision.reason)
        label = right if self._judge is None else self._judge(right, self._judging)
        if label is not None:
            self._policy.learned(candidate.entry.id, candidate.similarity, label)
        if not right:
            self._cache.record(lookup, answer)
        return self._explored(row, candidate, known, right, decision.reason)

    @staticmethod
    def _explored(row: Row, candidate: Candidate, known: bool, right: bool, reason: str) -> Outcome:
        return Outcome(
            row.kind,
            "explore",
            known=known,
            similarity=candidate.similarity,
            near_right=right,
            label=True,
            reason=reason,
        )
