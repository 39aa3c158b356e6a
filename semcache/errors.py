"""Every error that a user of semcache can meet, in one tree.

::

    Exception
    └── SemcacheError
        ├── RequestError (also a ValueError)    a prompt, message or argument cannot be used
        ├── ConfigError (also a ValueError)     a setting is wrong or contradicts another
        ├── StoreError                          the database cannot be opened, read or written
        │   ├── ReadOnlyError                   ... it can only be read
        │   └── StoreVersionError               ... because a newer semcache wrote it
        ├── IndexMismatchError                  the cache was built with another embedding model
        ├── EmbedderError                       the embedding model failed or is unavailable
        ├── ProviderError                       a provider did not answer
        │   ├── RateLimitedError                ... its rate limit, or a local one, is reached
        │   ├── UnavailableError                ... it failed, disconnected or was unreachable
        │   └── RejectedError                   ... it rejects the request: do not retry
        ├── BreakerOpenError                    calls are paused: the provider kept failing
        ├── RouteExhaustedError                 every provider of a route failed
        │   └── DeadlineExceededError (also a TimeoutError)   ... or the deadline passed
        └── WebhookError                        a delivery is malformed or not authentic

A message says what is wrong, where, and what to do about it. Faults of the cache
itself never reach a caller of `lookup`, `record` or a decorated function: they
become a miss and a `FaultEvent`. These errors are raised for invalid input, and
for explicit operations (opening, deleting, re-embedding) that fail.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from semcache.types import AttemptReport


class SemcacheError(Exception):
    """Base class of every error that semcache raises on purpose."""


class RequestError(SemcacheError, ValueError):
    """A prompt, a message or an argument is not a valid request."""


class ConfigError(SemcacheError, ValueError):
    """A setting has an invalid value or contradicts another.

    Attributes:
        problems: each problem on its own, if there are several.
    """

    def __init__(self, message: str, *, problems: Sequence[str] = ()) -> None:
        self.problems = tuple(problems) or (message,)
        super().__init__(message)


class StoreError(SemcacheError):
    """The database cannot be opened, read or written."""


class ReadOnlyError(StoreError):
    """The cache's files can only be read, so nothing can be stored."""


class StoreVersionError(StoreError):
    """The database was written by a newer version of semcache."""


class IndexMismatchError(SemcacheError):
    """The stored vectors come from a different embedding model than the one given.

    Attributes:
        stored: fingerprint of the embedder that the stored vectors come from.
        given: fingerprint of the embedder that the cache was opened with.
    """

    def __init__(self, *, stored: str, given: str, where: str) -> None:
        self.stored = stored
        self.given = given
        super().__init__(
            f"{where} holds vectors of the embedder {stored!r}, but {given!r} was given. "
            "Vectors of two models are never mixed: open the cache with the first, or run "
            f"`semcache reembed --cache {where}` to embed every stored question again."
        )


class EmbedderError(SemcacheError):
    """The embedding model failed, is missing, or returned unusable vectors."""


class ProviderError(SemcacheError):
    """A provider did not answer. The message gives its name, the status and its error message.

    Attributes:
        provider, model: the target of the call.
        status: the HTTP status; None if there was no response.
        request_id: the provider's id of the call, to quote to its support.
        detail: the provider's error message, with API keys removed.
        retry_after: seconds to wait before a retry; None if unknown.
        code: the provider's error code, such as "context_length_exceeded".
        held_back: whether the router itself refused the call, and sent nothing.
    """

    says = "failed"

    def __init__(
        self,
        detail: str,
        *,
        provider: str,
        model: str = "",
        status: int | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        code: str | None = None,
        held_back: bool = False,
    ) -> None:
        self.held_back = held_back
        self.provider = provider
        self.model = model
        self.status = status
        self.request_id = request_id
        self.detail = detail
        self.retry_after = retry_after
        self.code = code
        super().__init__(self._message())

    def asked(self, model: str) -> ProviderError:
        """This error, with the model filled in if it was missing."""
        if not self.model:
            self.model = model
            self.args = (self._message(),)
        return self

    def _message(self) -> str:
        target = f"{self.provider} ({self.model})" if self.model else self.provider
        problem = self.says if self.status is None else f"answered {self.status}"
        message = f"{target} {problem}: {self.detail}"
        if self.retry_after is not None:
            message += f" (retry in {self.retry_after:.3g} s)"
        return message if self.request_id is None else f"{message} [request {self.request_id}]"


class RateLimitedError(ProviderError):
    """The provider's rate limit, or a local limit, does not admit the call now."""

    says = "is at its limit"


class UnavailableError(ProviderError):
    """The provider failed, disconnected mid-answer, or was unreachable. A retry may help."""

    says = "is unavailable"


class RejectedError(ProviderError):
    """The provider rejects this request; a retry would not help."""

    says = "rejected the request"

    @property
    def elsewhere(self) -> bool:
        """Whether another provider may accept it: the key, account, model or size was at fault."""
        return (
            self.status in (401, 402, 403, 404, 405, 413, 429)
            or self.status is None
            or str(self.code).startswith(("context_length", "model_", "account"))
            or self.status // 100 == 3
        )


class BreakerOpenError(SemcacheError):
    """The provider failed too often in a row, and calls to it are paused.

    Attributes:
        provider: the provider's name.
        retry_after: seconds until it is tried again.
    """

    def __init__(self, *, provider: str, retry_after: float) -> None:
        self.provider = provider
        self.retry_after = retry_after
        super().__init__(
            f"{provider} failed too often in a row, and calls to it are paused for another "
            f"{retry_after:.1f} s (its breaker is open)."
        )


class RouteExhaustedError(SemcacheError):
    """Every provider of a route failed.

    Attributes:
        attempts: an `AttemptReport` for each call, in order.
        retry_after: seconds until one of the providers may be tried again; None if unknown.
    """

    def __init__(
        self, reason: str, *, attempts: Sequence[AttemptReport], retry_after: float | None = None
    ) -> None:
        self.attempts = tuple(attempts)
        self.retry_after = retry_after
        summary = "; ".join(_summaries(self.attempts)[-4:])
        super().__init__(f"{reason} {summary}" if summary else reason)


def _summaries(attempts: Sequence[AttemptReport]) -> list[str]:
    """A text for each attempt; one for several in a row that failed in the same way."""
    return [
        text if (times := len(list(same))) == 1 else f"{text} ({times} times)"
        for text, same in groupby(map(_attempt_summary, attempts))
    ]


def _attempt_summary(attempt: AttemptReport) -> str:
    status = "" if attempt.status is None else f" answered {attempt.status}"
    return f"{attempt.provider}/{attempt.model}{status}: {attempt.detail or attempt.result}"


class DeadlineExceededError(RouteExhaustedError, TimeoutError):
    """The deadline for the whole call, including waits, has passed."""


class WebhookError(SemcacheError):
    """A webhook delivery is not authentic, or is malformed.

    Attributes:
        status: the HTTP status to answer it with.
    """

    def __init__(self, reason: str, *, status: int) -> None:
        self.status = status
        super().__init__(reason)
