"""The steps that a call yields to its driver: the call decides, the driver waits and sends."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeAlias

from semcache.errors import ConfigError
from semcache.providers.http_messages import HTTPRequest
from semcache.providers.protocols import DirectProvider
from semcache.types import Chunk, Request


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long one attempt may take, in seconds; None means no limit.

    Attributes:
        connect: to establish a connection.
        read: between two pieces of the response, and before the first.
        total: for the whole attempt. The deadline of the call limits it further.

    Raises:
        ConfigError: one of them is not above 0.
    """

    connect: float | None = 10.0
    read: float | None = 60.0
    total: float | None = None

    def __post_init__(self) -> None:
        if not all(t is None or t > 0 for t in (self.connect, self.read, self.total)):
            raise ConfigError(f"{self}: timeouts must be above 0 (or None).")

    def within(self, left: float | None) -> Timeouts:
        """The same timeouts, each limited to `left` seconds; None changes nothing."""
        if left is None:
            return self
        most = max(left, 0.001)
        return Timeouts(
            *(most if t is None else min(t, most) for t in (self.connect, self.read, self.total))
        )


@dataclass(frozen=True, slots=True)
class Sleep:
    """Sleep for this many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class WaitFor:
    """Wait at most `seconds` (None means no limit) for a future; return whether it is done."""

    future: Future[None]
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Exchange:
    """Send an HTTP request and return the whole reply."""

    request: HTTPRequest
    timeouts: Timeouts


@dataclass(frozen=True, slots=True)
class OpenStream:
    """Send an HTTP request; return the reply without its body if that is an event stream.

    Any other reply is returned whole.
    """

    request: HTTPRequest
    timeouts: Timeouts


@dataclass(frozen=True, slots=True)
class NextEvent:
    """Read the next event of the open stream; None at its end."""


@dataclass(frozen=True, slots=True)
class Drain:
    """Read the rest of a stream whose answer is complete, so that its connection can be reused.

    The caller is not kept waiting for it, or only briefly.
    """


@dataclass(frozen=True, slots=True)
class DirectCall:
    """Call a direct provider; `seconds` is the time left, None if there is no deadline."""

    provider: DirectProvider
    request: Request
    model: str
    seconds: float | None


@dataclass(frozen=True, slots=True)
class OpenDirectStream:
    """Start a direct provider's stream; `seconds` as in `DirectCall`."""

    provider: DirectProvider
    request: Request
    model: str
    seconds: float | None


@dataclass(frozen=True, slots=True)
class NextChunk:
    """Read the next chunk of the direct provider's stream; None at its end."""


@dataclass(frozen=True, slots=True)
class Emit:
    """Hand a chunk to the caller."""

    chunk: Chunk


Step: TypeAlias = (
    Sleep
    | WaitFor
    | Exchange
    | OpenStream
    | NextEvent
    | Drain
    | DirectCall
    | OpenDirectStream
    | NextChunk
    | Emit
)
Steps: TypeAlias = Generator[Step, Any, Any]
