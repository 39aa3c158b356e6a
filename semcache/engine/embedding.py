"""Turns a question into its vector, or says why it has none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from semcache.types import Miss

if TYPE_CHECKING:
    from semcache.types import Vector

_NO_QUESTION = Miss("no_question", "the request has no user turn with text to embed")
_TOO_LONG = Miss(
    "question_too_long",
    "the question is longer than the embedder's window, so only the exact tier was used "
    "(long_prompts='chunks' embeds all of it)",
)


@dataclass(frozen=True, slots=True)
class QuestionEmbedder:
    """Turns questions into vectors, within the cache's time limit and prompt length.

    Attributes:
        embed: question -> float32[d]; raises `EmbedderError`.
        fits: whether a question fits the embedder's window.
        embed_long: `embed` for questions that do not fit; None if they use the exact tier only.
    """

    embed: Callable[[str], Vector]
    fits: Callable[[str], bool]
    embed_long: Callable[[str], Vector] | None = None

    def vector(self, question: str | None) -> Vector | Miss:
        """The vector of a question, float32[d], or why there is none.

        Raises:
            EmbedderError: the embedder failed.
        """
        if question is None:
            return _NO_QUESTION
        if self.fits(question):
            return self.embed(question)
        if self.embed_long is not None:
            return self.embed_long(question)
        return _TOO_LONG
