"""Judges decide whether a stored answer would have served as well as a fresh one."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from semcache.errors import ConfigError
from semcache.types import Completion
from semcache.verification.answer_verdict import compare_texts
from semcache.verification.base import Judge, Verifier
from semcache.verification.reliability import JUDGED_BY_FUNCTION, JUDGED_BY_MODEL, Reliability

if TYPE_CHECKING:
    from semcache.types import Vector

_SPACE = re.compile(r"\s+")
_PIECE = 800
"""Characters that an embedding model reads at once without truncation."""
_PIECES = 8
"""Maximum number of pieces of a text that are embedded; the rest of it is ignored."""


def reliability_of(judge: Any) -> Reliability:
    """The judge's own `reliability`, or the default for judges without one."""
    stated = getattr(judge, "reliability", None)
    return stated if isinstance(stated, Reliability) else JUDGED_BY_FUNCTION


class FunctionJudge:
    """Wraps a function of (question, stored text, fresh text) as a judge.

    The function returns True, False, or None if it is not sure.
    """

    def __init__(self, function: Callable[[str, str, str], bool | None]) -> None:
        self._function = function

    def judge(self, question: str, stored: Completion, fresh: Completion) -> bool | None:
        result = self._function(question, stored.text, fresh.text)
        if result is None or isinstance(result, bool):
            return result
        if type(result).__name__ in ("bool_", "bool"):  # NumPy's
            return bool(result)
        raise TypeError(f"a judge must return True, False or None, not {type(result).__name__}")


class LocalJudge:
    """Compares two answers locally, without a language model. The default judge.

    Equal texts are the same answer. Otherwise the words of both, without those of the question,
    are compared over the whole texts (`answer_verdict`). Rules settle the clear cases; a small
    model of shared words, names and numbers decides the others if it can. "Different" requires a
    contradictory number, date, name or polarity, or two answers with nothing in common. If neither
    verdict is clear, the judge is not sure.

    Args:
        embed: returns unit vectors, float32[n, d]; used for few pairs, and never decisive alone.
        verifier: not used. It was trained on questions; among the pairs of answers that this judge
            accepts as the same, it rejects right ones about as often as wrong ones.
    """

    reliability = Reliability((0.10, 0.55, 0.02, 0.33), (0.002, 0.098, 0.48, 0.42), strength=40.0)
    """About what `benchmarks.judge` measures on answers of a sentence or two."""

    def __init__(
        self,
        embed: Callable[[Sequence[str]], Vector],
        *,
        verifier: Verifier | None = None,  # noqa: ARG002 - callers pass it; see above
    ) -> None:
        self._embed = embed

    def judge(self, question: str, stored: Completion, fresh: Completion) -> bool | None:
        one, other = _plain(stored.text), _plain(fresh.text)
        if _structured(stored) or _structured(fresh):  # more than text: equal, or not sure
            return True if stored.payload == fresh.payload and one == other else None
        if not one or not other:
            return None
        if one == other:
            return True
        return compare_texts(
            question, stored.text, fresh.text, lambda: self._cosine(stored.text, fresh.text)
        )

    def _cosine(self, one: str, other: str) -> float:
        """The cosine similarity of two texts, each represented by the mean of its pieces."""
        return float(self._direction(one) @ self._direction(other))

    def _direction(self, text: str) -> Vector:
        import numpy as np

        pieces = [text[start : start + _PIECE] for start in range(0, len(text), _PIECE)]
        mean: Vector = self._embed(pieces[:_PIECES]).mean(axis=0)
        return mean / max(float(np.linalg.norm(mean)), 1e-12)


def _plain(text: str) -> str:
    return _SPACE.sub(" ", text).strip().casefold().rstrip(".!")


def _structured(completion: Completion) -> bool:
    return completion.payload_kind not in (None, "chunks")


PROMPT = (
    "A user asked a question and got answer A. Would answer B have told the user the same? "
    "Ignore wording and length; facts, numbers and advice must agree.\n\n"
    "Question: {question}\n\nAnswer A: {stored}\n\nAnswer B: {fresh}\n\n"
    "Reply with one word: yes or no."
)
_CUT = 4000


class ModelJudge:
    """Asks a language model to compare two answers.

    Args:
        complete: sends a prompt and returns the reply, such as
            `lambda prompt: router.complete(...).text`.
    """

    reliability = JUDGED_BY_MODEL

    def __init__(self, complete: Callable[[str], str]) -> None:
        self._complete = complete

    def judge(self, question: str, stored: Completion, fresh: Completion) -> bool | None:
        prompt = PROMPT.format(
            question=question[:_CUT], stored=stored.text[:_CUT], fresh=fresh.text[:_CUT]
        )
        return verdict(self._complete(prompt))


def verdict(reply: str) -> bool | None:
    """True for a reply of yes, False for no, None for anything else."""
    words = re.findall(r"[a-z]+", reply.lower())
    verdicts = {word for word in words if word in ("yes", "no")}
    return (verdicts == {"yes"}) if len(verdicts) == 1 else None


def as_judge(judge: Any) -> Judge:
    """A judge as it is, or a function wrapped as a judge.

    Raises:
        ConfigError: `judge` is neither, or an async function.
    """
    if isinstance(judge, Judge):
        return judge
    if inspect.iscoroutinefunction(judge):
        raise ConfigError(
            "judge is an async function, but judges run in a thread: pass a plain function."
        )
    if callable(judge):
        return FunctionJudge(judge)
    given = repr(judge) if isinstance(judge, str) else f"of type {type(judge).__name__}"
    raise ConfigError(
        f"judge is {given}; pass a semcache judge, a function of (question, "
        "stored text, fresh text), 'local', 'model', the name of an installed judge, or None."
    )
