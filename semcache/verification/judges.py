"""Judges: would a stored answer have done in a fresh one's place?"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from semcache.errors import ConfigError
from semcache.types import Completion
from semcache.verification import guards
from semcache.verification.base import Judge, Verifier

if TYPE_CHECKING:
    from semcache.types import Vector

_SPACE = re.compile(r"\s+")
_COUNTS = frozenset(("number", "date", "time", "place", "identifier", "order"))
"""Findings that make two short answers different."""
_SHORT = 300
"""Characters of an answer whose every number counts; a longer one is taken as a whole."""


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

    Equal texts are the same answer. Otherwise the cosine of their embeddings decides, with a
    wide margin in which it says nothing; in short answers a number, date or name that
    contradicts the other is a difference whatever the cosine.

    Args:
        embed: unit vectors, float32[n, d].
        verifier: must not deny that two short answers are the same; None: is not asked.
        same: cosine from which on two answers are taken for the same; different: to which
            they are taken for different ones.
    """

    def __init__(
        self,
        embed: Callable[[Sequence[str]], Vector],
        *,
        verifier: Verifier | None = None,
        same: float = 0.85,
        different: float = 0.6,
    ) -> None:
        if not 0 <= different < same <= 1:
            raise ConfigError("A judge needs 0 <= different < same <= 1.")
        self._embed, self._verifier = embed, verifier
        self._same, self._different = same, different

    def judge(self, question: str, stored: Completion, fresh: Completion) -> bool | None:  # noqa: ARG002 - the answers say enough
        one, other = _plain(stored.text), _plain(fresh.text)
        if _structured(stored) or _structured(fresh):  # not only words: equal or not known
            return True if stored.payload == fresh.payload and one == other else None
        if not one or not other:
            return None
        if one == other:
            return True
        if max(len(one), len(other)) <= _SHORT and _contradict(stored.text, fresh.text):
            return False
        vectors = self._embed([stored.text, fresh.text])
        similarity = float(vectors[0] @ vectors[1])
        if similarity >= self._same:
            return None if self._denied(stored.text, fresh.text) else True
        return False if similarity <= self._different else None

    def _denied(self, one: str, other: str) -> bool:
        """Whether the pair model thinks two short answers different, however near they lie."""
        if self._verifier is None or max(len(one), len(other)) > _SHORT:
            return False
        return self._verifier.logits([(one, other)])[0] < 0


def _plain(text: str) -> str:
    return _SPACE.sub(" ", text).strip().casefold().rstrip(".!")


def _structured(completion: Completion) -> bool:
    return completion.payload_kind not in (None, "chunks")


def _contradict(one: str, other: str) -> bool:
    return any(f.decisive and f.kind in _COUNTS for f in guards.compare(one, other))


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
