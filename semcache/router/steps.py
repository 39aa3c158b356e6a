"""What the router asks its driver to do. The router decides, the driver waits and sends."""

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
    """How long one attempt may take, in seconds; None: no limit.

    Attributes:
        connect: until there is a connection.
        read: between two pieces of the answer, and until the first.
        total: for the attempt as a whole. The deadline of the call limits it further.

    Raises:
        ConfigError: one is not above 0.
    """

    connect: float | None = 10.0
    read: float | None = 60.0
    total: float | None = None

    def __post_init__(self) -> None:
        if not all(t is None or t > 0 for t in (self.connect, self.read, self.total)):
            raise ConfigError(f"{self}: time-outs are above 0 (or None).")

    def within(self, left: float | None) -> Timeouts:
        """The same, with no more than `left` seconds for each."""
        if left is None:
            return self
        least = max(left, 0.001)
        return Timeouts(
            *(least if t is None else min(t, least) for t in (self.connect, self.read, self.total))
        )


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class WaitFor:
    """Wait for a future, for at most `seconds`; True if it is done."""

    future: Future[None]
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Exchange:
    """Send a request and give the reply, read to its end."""

    request: HTTPRequest
    timeouts: Timeouts


@dataclass(frozen=True, slots=True)
class Open:
    """Send a request and give the reply; if it is a stream of events, they are left unread."""

    request: HTTPRequest
    timeouts: Timeouts


@dataclass(frozen=True, slots=True)
class NextEvent:
    """Read one event of the open stream; None at its end."""


@dataclass(frozen=True, slots=True)
class Drain:
    """The answer is whole: read what little is left of the stream, so that its connection can be
    used again. Nobody waits for that long."""


@dataclass(frozen=True, slots=True)
class Call:
    """Ask a provider that is called directly."""

    provider: DirectProvider
    request: Request
    model: str
    seconds: float | None


@dataclass(frozen=True, slots=True)
class OpenCall:
    """Begin the stream of a provider that is called directly."""

    provider: DirectProvider
    request: Request
    model: str
    seconds: float | None


@dataclass(frozen=True, slots=True)
class NextChunk:
    """The next chunk of that stream; None at its end."""


@dataclass(frozen=True, slots=True)
class Emit:
    """Hand a chunk to the caller."""

    chunk: Chunk


Step: TypeAlias = (
    Sleep | WaitFor | Exchange | Open | NextEvent | Drain | Call | OpenCall | NextChunk | Emit
)
Steps: TypeAlias = Generator[Step, Any, Any]
