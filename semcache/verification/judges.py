"""Judges: would a stored answer have done in a fresh one's place?"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from semcache.errors import ConfigError
from semcache.types import Completion
from semcache.verification.answer_verdict import compare_texts
from semcache.verification.base import Judge, Verifier

if TYPE_CHECKING:
    from semcache.types import Vector

_SPACE = re.compile(r"\s+")
_PIECE = 800
"""Characters that an embedding model reads at once without cutting."""
_PIECES = 8
"""Pieces of a text that are embedded: more than the longest text whose cosine counts."""


class FunctionJudge:
    """A judge that is a function of (question, stored text, fresh text).

    It returns True, False, or None where it is not sure.
    """

    def __init__(self, function: Callable[[str, str, str], bool | None]) -> None:
        self._function = function

    def judge(self, question: str, stored: Completion, fresh: Completion) -> bool | None:
        said = self._function(question, stored.text, fresh.text)
        if said is None or isinstance(said, bool):
            return said
        if type(said).__name__ == "bool_" or type(said).__name__ == "bool":  # NumPy's
            return bool(said)
        raise TypeError(f"a judge returns True, False or None, not a {type(said).__name__}")


class LocalJudge:
    """Compares two answers on this machine: the default.

    Equal texts are the same answer. Otherwise the words of both, without those of the question,
    are compared over their whole length (`answer_verdict`): an answer that the other contains
    is the same; a number, date, name or polarity that contradicts makes them different, and so
    does having nothing in common. Where neither is clear, the judge is not sure.

    Args:
        embed: unit vectors, float32[n, d]; asked about few pairs, and never decisive alone.
        verifier: not asked. It was trained on questions, and of the pairs of answers that this
            judge takes for the same it denies the right ones about as often as the wrong ones.
    """

    def __init__(
        self,
        embed: Callable[[Sequence[str]], Vector],
        *,
        verifier: Verifier | None = None,  # noqa: ARG002 - callers pass it; see above
    ) -> None:
        self._embed = embed

    def judge(self, question: str, stored: Completion, fresh: Completion) -> bool | None:
        one, other = _plain(stored.text), _plain(fresh.text)
        if _structured(stored) or _structured(fresh):  # not only words: equal or not known
            return True if stored.payload == fresh.payload and one == other else None
        if not one or not other:
            return None
        if one == other:
            return True
        return compare_texts(
            question, stored.text, fresh.text, lambda: self._cosine(stored.text, fresh.text)
        )

    def _cosine(self, one: str, other: str) -> float:
        """The cosine of two texts, each the mean of its pieces."""
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
    """Asks a language model.

    Args:
        complete: answers a prompt, such as `lambda prompt: router.complete(...).text`.
    """

    def __init__(self, complete: Callable[[str], str]) -> None:
        self._complete = complete

    def judge(self, question: str, stored: Completion, fresh: Completion) -> bool | None:
        told = PROMPT.format(
            question=question[:_CUT], stored=stored.text[:_CUT], fresh=fresh.text[:_CUT]
        )
        return verdict(self._complete(told))


def verdict(reply: str) -> bool | None:
    """yes: True, no: False, anything else: None."""
    words = re.findall(r"[a-z]+", reply.lower())
    said = {word for word in words if word in ("yes", "no")}
    return (said == {"yes"}) if len(said) == 1 else None


def as_judge(given: Any) -> Judge:
    """A judge, or a function as one.

    Raises:
        ConfigError: it is neither.
    """
    if isinstance(given, Judge):
        return given
    if inspect.iscoroutinefunction(given):
        raise ConfigError(
            "judge is an async function; it is called from a thread: give a plain one."
        )
    if callable(given):
        return FunctionJudge(given)
    raise ConfigError(
        f"judge is a {type(given).__name__}; give a semcache judge, a function of (question, "
        "stored text, fresh text), 'local', 'model', or None."
    )
