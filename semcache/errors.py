"""Every error that semcache raises, in one tree.

::

    Exception
    └── SemcacheError
        ├── RequestError (also a ValueError)    a prompt, message or argument cannot be used
        ├── ConfigError (also a ValueError)     a setting is wrong or contradicts another
        ├── StoreError                          the database cannot be opened, read or written
        │   └── StoreVersionError               ... because a newer semcache wrote it
        ├── IndexMismatchError                  the cache was built with another embedding model
        ├── EmbedderError                       the embedding model failed or is not to be had
        ├── ProviderError                       a model's provider gave no answer
        │   ├── RateLimitedError                ... it, or a limit set here, has no room now
        │   ├── UnavailableError                ... it failed, broke off or could not be reached
        │   └── RejectedError                   ... it will not answer this request: no retry
        ├── BreakerOpenError                    the provider failed too often and is left alone
        ├── RouteExhaustedError                 every provider of a route was tried in vain
        │   └── DeadlineExceededError (also a TimeoutError)   ... or the time was up
        └── WebhookError                        a delivery is not to be trusted or understood

A message says what is wrong, where, and what to do about it. Faults of the cache
itself never reach a caller of `lookup`, `record` or a decorated function: they
become a miss and a `FaultEvent`. These errors are raised where the caller's
input is at fault, and where a person asked for something that cannot be done.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from semcache.types import AttemptReport


class SemcacheError(Exception):
    """The base of every error that semcache raises on purpose."""


class RequestError(SemcacheError, ValueError):
    """A prompt, a message or an argument cannot be turned into a request."""


class ConfigError(SemcacheError, ValueError):
    """A setting has a value that semcache cannot work with.

    Attributes:
        problems: one by one, where there may be several.
    """

    def __init__(self, message: str, *, problems: Sequence[str] = ()) -> None:
        self.problems = tuple(problems) or (message,)
        super().__init__(message)


class StoreError(SemcacheError):
    """The database cannot be opened, read or written."""


class StoreVersionError(StoreError):
    """The database was written by a newer semcache than this one."""


class IndexMismatchError(SemcacheError):
    """The stored vectors come from another embedding model than the one given.

    Attributes:
        stored: fingerprint of the embedder whose vectors the cache holds.
        given: fingerprint of the embedder that was to be used now.
    """

    def __init__(self, *, stored: str, given: str, where: str) -> None:
        self.stored = stored
        self.given = given
        super().__init__(
            f"{where} holds vectors of the embedder {stored!r}, but {given!r} was given. "
            "Vectors of two models are never mixed: open the cache with the first, or run "
            f"`semcache reembed --cache {where}` to embed every stored question anew."
        )


class EmbedderError(SemcacheError):
    """The embedding model failed, is missing, or gave vectors that cannot be used."""


class ProviderError(SemcacheError):
    """A provider gave no answer. The message names it, the status and its own words.

    Attributes:
        provider, model: who was asked.
        status: the HTTP status; None where there was none.
        request_id: the provider's name for the call, to quote to its support.
        detail: the provider's own words, without keys.
        retry_after: seconds after which it may be asked again, if it said so.
        code: the provider's own name for the error, such as "context_length_exceeded".
        held_back: the router itself refused the call; the provider was not asked.
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
        """The same error, with the model that was asked."""
        if not self.model:
            self.model = model
            self.args = (self._message(),)
        return self

    def _message(self) -> str:
        who = f"{self.provider} ({self.model})" if self.model else self.provider
        did = self.says if self.status is None else f"answered {self.status}"
        said = f"{who} {did}: {self.detail}"
        if self.retry_after is not None:
            said += f" (again in {self.retry_after:.3g} s)"
        return said if self.request_id is None else f"{said} [request {self.request_id}]"


class RateLimitedError(ProviderError):
    """The provider, or a limit that is set here, has no room for the call now."""

    says = "has no room"


class UnavailableError(ProviderError):
    """The provider failed, broke off in mid-answer, or could not be reached. A retry may help."""

    says = "is unavailable"


class RejectedError(ProviderError):
    """The provider will not answer this request, however often it is asked."""

    says = "rejected the request"

    @property
    def elsewhere(self) -> bool:
        """Whether another provider may answer: the fault lies with key, account, model or size."""
        return (
            self.status in (401, 402, 403, 404, 405, 413, 429)
            or self.status is None
            or str(self.code).startswith(("context_length", "model_", "account"))
            or self.status // 100 == 3
        )


class BreakerOpenError(SemcacheError):
    """The provider failed too often in a row and is left alone for a while.

    Attributes:
        provider: which. retry_after: seconds until it is tried again.
    """

    def __init__(self, *, provider: str, retry_after: float) -> None:
        self.provider = provider
        self.retry_after = retry_after
        super().__init__(
            f"{provider} failed too often in a row and is left alone for another "
            f"{retry_after:.1f} s (its breaker is open)."
        )


class RouteExhaustedError(SemcacheError):
    """Every provider of a route was tried in vain.

    Attributes:
        attempts: an `AttemptReport` for each call, in order.
        retry_after: seconds after which one of them may be asked again, if any said so.
    """

    def __init__(
        self, reason: str, *, attempts: Sequence[AttemptReport], retry_after: float | None = None
    ) -> None:
        self.attempts = tuple(attempts)
        self.retry_after = retry_after
        told = "; ".join(map(_told, self.attempts[-4:]))
        super().__init__(f"{reason} {told}" if told else reason)


def _told(attempt: AttemptReport) -> str:
    status = "" if attempt.status is None else f" answered {attempt.status}"
    return f"{attempt.provider}/{attempt.model}{status}: {attempt.detail or attempt.result}"


class DeadlineExceededError(RouteExhaustedError, TimeoutError):
    """The time given for the whole call, waits included, was up."""


class WebhookError(SemcacheError):
    """A delivery is not to be trusted or understood.

    Attributes:
        status: the HTTP status that says so.
    """

    def __init__(self, reason: str, *, status: int) -> None:
        self.status = status
        super().__init__(reason)
