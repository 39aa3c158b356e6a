"""The interfaces that a provider implements for the router."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from semcache.errors import ProviderError
    from semcache.providers.http_messages import HTTPReply, HTTPRequest, ServerEvent
    from semcache.types import (
        Chunk,
        Completion,
        Request,
    )


class Named(Protocol):
    """The properties of every provider."""

    @property
    def name(self) -> str:
        """The name that routes, limits and messages use."""
        ...

    @property
    def default_model(self) -> str:
        """The model for requests and routes that name none; "" if there is no default."""
        ...

    @property
    def models(self) -> Sequence[str]:
        """Patterns ("gpt-*") of the models it offers; requests that name one are sent to it."""
        ...

    @property
    def price_list(self) -> str | None:
        """The provider's id in genai-prices; None means that its prices are not known."""
        ...

    @property
    def key_id(self) -> str | None:
        """An id that is the same for providers with the same API key, and does not reveal the key.

        None means that there is no key.
        """
        ...


@runtime_checkable
class Provider(Named, Protocol):
    """Translates requests to HTTP and replies to answers. Has no client, retries or clock.

    - Pure: the same arguments give the same result, and threads may share it.
    - Keys appear in no message, log or repr: secrets go into `HTTPRequest.secrets`.
    """

    def build(self, request: Request, *, model: str, stream: bool) -> HTTPRequest:
        """Build the HTTP request.

        Raises:
            RejectedError: the provider does not support the request.
        """
        ...

    def read(self, reply: HTTPReply) -> Completion:
        """Read the answer in a reply with a 2xx status.

        Raises:
            ProviderError: the reply reports an error, or contains no answer.
        """
        ...

    def error(self, reply: HTTPReply, *, now: float) -> ProviderError:
        """The error for a reply with any other status. `now`: seconds since the epoch."""
        ...

    def reader(self) -> StreamReader:
        """A new reader for the events of one stream."""
        ...


class StreamReader(Protocol):
    """Reads one stream of events, once, for one caller."""

    def feed(self, event: ServerEvent) -> str:
        """Read an event and return the text that it adds to the answer.

        Raises:
            ProviderError: the event reports a failure.
        """
        ...

    @property
    def ended(self) -> bool:
        """Whether the provider has marked the end of the stream; nothing more needs reading."""
        ...

    def finish(self) -> Completion:
        """The whole answer.

        Raises:
            UnavailableError: the stream broke off before its end.
        """
        ...


@runtime_checkable
class DirectProvider(Named, Protocol):
    """A provider that the router calls, instead of sending HTTP: a function, an SDK's client.

    - It raises `ProviderError` for the provider's failures. Any other exception passes through
      to the caller, and no other provider is tried.
    - `timeout` is the time left for the call, in seconds; None means no limit.
    """

    def call(self, request: Request, *, model: str, timeout: float | None) -> Completion:
        """Get the answer."""
        ...

    async def acall(self, request: Request, *, model: str, timeout: float | None) -> Completion:
        """Get the answer without blocking."""
        ...

    def stream(self, request: Request, *, model: str, timeout: float | None) -> Iterator[Chunk]:
        """Get the answer in chunks, the last one with the completion."""
        ...

    def astream(
        self, request: Request, *, model: str, timeout: float | None
    ) -> AsyncIterator[Chunk]:
        """Get the answer in chunks without blocking, the last one with the completion."""
        ...
