"""From a question to its vector, or to the reason why there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from semcache.types import Miss

if TYPE_CHECKING:
    from semcache.types import Vector

_NO_QUESTION = Miss("no_question", "there is no user turn with words in it to embed")
_TOO_LONG = Miss(
    "question_too_long",
    "the question is longer than the embedder's window, so that only the exact tier looks at it "
    "(long_prompts='chunks' embeds all of it)",
)


@dataclass(frozen=True, slots=True)
class QuestionEmbedder:
    """Turns questions into vectors, on the cache's terms.

    Attributes:
        embed: question -> float32[d]; raises `EmbedderError`.
        fits: whether all of a question reaches its vector.
        embed_long: `embed` for questions that do not fit; None if these use the exact tier only.
    """

    embed: Callable[[str], Vector]
    fits: Callable[[str], bool]
    embed_long: Callable[[str], Vector] | None = None

    def vector(self, question: str | None) -> Vector | Miss:
        """float32[d] of a question, or why there is none.

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
