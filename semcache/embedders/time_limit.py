"""An embedder that answers in time or fails.

A call that hangs cannot be stopped from outside, only left behind: it runs on a
thread of its own, and the caller goes on without it. One that did not answer is
left alone for a while, so that a hung model costs one wait and not one for each call.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from semcache.errors import EmbedderError

if TYPE_CHECKING:
    from semcache.protocols import Embedder
    from semcache.types import Vector

REST = 30.0
"""Seconds for which an embedder that hung is left alone."""


class TimeLimited:
    """An `Embedder` around another.

    Args:
        seconds: the longest that one call of `embed` may take. Loading does not count.
    """

    local = True

    def __init__(self, embedder: Embedder, seconds: float, *, rest: float = REST) -> None:
        self._embedder = embedder
        self._seconds = seconds
        self._rest = rest
        self._hung_until = 0.0

    @property
    def fingerprint(self) -> str:
        return self._embedder.fingerprint

    @property
    def dimension(self) -> int:
        return self._embedder.dimension

    @property
    def window(self) -> int | None:
        return self._embedder.window

    def load(self) -> None:
        self._embedder.load()

    def count_tokens(self, text: str) -> int:
        return self._embedder.count_tokens(text)

    def embed(self, texts: Sequence[str]) -> Vector:
        if time.monotonic() < self._hung_until:
            raise EmbedderError(
                f"{self.fingerprint} did not answer within {self._seconds} s a short while ago "
                "and is left alone for now."
            )
        outcome: list[Vector | BaseException] = []
        thread = threading.Thread(
            target=self._run, args=(list(texts), outcome), name="semcache-embed", daemon=True
        )
        thread.start()
        thread.join(self._seconds)
        if not outcome:
            self._hung_until = time.monotonic() + self._rest
            raise EmbedderError(f"{self.fingerprint} did not answer within {self._seconds} s.")
        if isinstance(outcome[0], Exception):
            raise outcome[0]
        if isinstance(outcome[0], BaseException):  # SystemExit and the like end no caller
            raise EmbedderError(f"{self.fingerprint} failed: {outcome[0]!r}")
        return outcome[0]

    def _run(self, texts: list[str], outcome: list[Vector | BaseException]) -> None:
        try:
            outcome.append(self._embedder.embed(texts))
        except BaseException as error:
            outcome.append(error)
