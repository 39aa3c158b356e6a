"""What the router asks of a provider."""

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
    """What every provider says of itself."""

    @property
    def name(self) -> str:
        """What routes, limits and messages call it."""
        ...

    @property
    def default_model(self) -> str:
        """The model for requests and routes that name none; "" where there is none."""
        ...

    @property
    def models(self) -> Sequence[str]:
        """Patterns ("gpt-*") of models that are its own: requests for these come here."""
        ...

    @property
    def price_list(self) -> str | None:
        """The provider's id in the list of prices; None: its prices are not known."""
        ...

    @property
    def key_id(self) -> str | None:
        """Equal for providers that use one API key, and tells nothing of it; None: no key."""
        ...


@runtime_checkable
class Provider(Named, Protocol):
    """A codec: requests to HTTP and HTTP to answers. Owns no client, no retry, no clock.

    - Pure: the same arguments, the same result; may be called from many threads at once.
    - No key in any message, log or repr: secrets go into `HTTPRequest.secrets`.
    """

    def build(self, request: Request, *, model: str, stream: bool) -> HTTPRequest:
        """The HTTP request. Raises `RejectedError` for what this provider cannot be asked."""
        ...

    def read(self, reply: HTTPReply) -> Completion:
        """The answer in a reply of status 2xx. Raises `UnavailableError` if it is none."""
        ...

    def error(self, reply: HTTPReply, *, now: float) -> ProviderError:
        """What a reply of another status means. now: seconds since the epoch."""
        ...

    def reader(self) -> StreamReader:
        """For the events of one stream."""
        ...


class StreamReader(Protocol):
    """Reads one stream of events. Used by one caller, once."""

    def feed(self, event: ServerEvent) -> str:
        """The words that an event adds. Raises `ProviderError` if it tells of a failure."""
        ...

    @property
    def ended(self) -> bool:
        """The provider has said that the answer is whole; nothing more is to be read."""
        ...

    def finish(self) -> Completion:
        """The whole answer. Raises `UnavailableError` if the stream broke off before its end."""
        ...


@runtime_checkable
class DirectProvider(Named, Protocol):
    """A provider that is called and not sent to: a function, an SDK's client.

    - Raises `ProviderError` for the provider's failures; whatever else it raises passes
      through to the caller, and nobody else is asked.
    - timeout: seconds left for the call, or None.
    """

    def call(self, request: Request, *, model: str, timeout: float | None) -> Completion:
        """The answer."""
        ...

    async def acall(self, request: Request, *, model: str, timeout: float | None) -> Completion:
        """The answer."""
        ...

    def stream(self, request: Request, *, model: str, timeout: float | None) -> Iterator[Chunk]:
        """The answer in pieces, the last with the completion."""
        ...

    def astream(
        self, request: Request, *, model: str, timeout: float | None
    ) -> AsyncIterator[Chunk]:
        """The answer in pieces, the last with the completion."""
        ...
