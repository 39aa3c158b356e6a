"""Types of one call: its options, its values, and the steps that it yields."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from semcache.backends.retention import UNSET, GivenTTL
from semcache.types import Completion, Lookup

if TYPE_CHECKING:
    from semcache.engine.record import StoragePolicy
    from semcache.engine.single_flight import InFlight

Coalesce = Literal["exact", "semantic", "off"]


class Codec(Protocol):
    """Converts a caller's values to completions, to be stored, and back."""

    tells_source: bool
    """Whether its values can say where they were served from."""

    def keep(self, chunk: Any) -> Any:
        """Return what `dump` needs from a chunk, before the caller can modify the chunk."""
        ...

    def load_chunk(self, kept: Any) -> Any:
        """A copy of a chunk, from what `keep` returned for it."""
        ...

    def keep_returned(self, value: Any) -> Any:
        """What `dump` needs from a generator's return value: the last item of the list it is given.

        Raises:
            TypeError: the value cannot be stored.
        """
        ...

    def dump(self, value: Any) -> Completion:
        """Convert a value, or the list of what `keep` returned for the chunks of a stream.

        Raises:
            TypeError: the value cannot be stored.
        """
        ...

    def load(self, completion: Completion) -> Any:
        """Convert back to a value that the caller may modify.

        Raises:
            TypeError, ValueError: the completion does not hold a value of this kind.
        """
        ...


class WithoutReturn:
    """For codecs whose streams return nothing."""

    def keep_returned(self, value: Any) -> Any:
        raise TypeError(f"this stream cannot return a value, but it returned {value!r:.100}")


class CompletionCodec(WithoutReturn):
    """For callers whose values are completions."""

    tells_source = True

    def keep(self, chunk: Any) -> Any:
        return chunk

    def load_chunk(self, kept: Any) -> Any:
        return kept

    def dump(self, value: Completion) -> Completion:
        if not isinstance(value, Completion):
            raise TypeError(f"send returned a {type(value).__name__}, not a semcache.Completion")
        return value

    def load(self, completion: Completion) -> Completion:
        return completion


COMPLETIONS = CompletionCodec()


class TextChunks(WithoutReturn):
    """For streams of text."""

    tells_source = False

    def keep(self, chunk: str) -> str:
        return chunk

    def load_chunk(self, kept: str) -> str:
        return kept

    def dump(self, value: Sequence[str]) -> Completion:
        return Completion("".join(value), payload=list(value), payload_kind="chunks")

    def load(self, completion: Completion) -> list[str]:
        if completion.payload_kind == "chunks" and all(
            isinstance(chunk, str) for chunk in completion.payload
        ):
            return list(completion.payload)
        return [completion.text]


TEXT_CHUNKS = TextChunks()


class Report(Protocol):
    """Receives the outcome of a call."""

    def lookup(self, lookup: Lookup) -> None:
        """The call has been looked up."""
        ...

    def fault(self, where: str, error: BaseException) -> None:
        """A part failed; the report passes it on to the cache's telemetry."""
        ...

    def recorded(self, reason: str) -> None:
        """The answer was stored (reason "stored"), or was not stored for this reason."""
        ...


@dataclass(frozen=True, slots=True)
class CallOptions:
    """How one call is looked up and stored.

    Attributes:
        codec: converts values to completions and back.
        ttl: the TTL of the answer; see `Retention`.
        store_if: called with the value, which is stored only if it returns True.
        storage: which answers are stored; None means the cache's own policy.
        streams: whether values are lists of chunks.
        coalesce: which calls in flight to wait for: "exact" for those with an equal request,
            "semantic" also for those whose answer may be served to this request, or "off".
        refresh: ask the model even if an answer is stored, and replace that answer.
        report: receives the outcome of the call.
    """

    codec: Codec = COMPLETIONS
    ttl: GivenTTL = UNSET
    store_if: Callable[[Any], bool] | None = None
    storage: StoragePolicy | None = None
    streams: bool = False
    coalesce: Coalesce = "exact"
    refresh: bool = False
    report: Report | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """A step: wait for a call; treat it as abandoned after `patience` seconds."""

    call: InFlight
    patience: float | None


@dataclass(frozen=True, slots=True)
class Pause:
    """A step: sleep for this many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Served:
    """The value that answers the call. `lookup` is the hit, if it may need an audit or refresh."""

    value: Any
    lookup: Lookup | None = None


@dataclass(frozen=True, slots=True)
class Lead:
    """The caller must ask the model, and then end the call in flight.

    Attributes:
        replaces: id of a stale entry that the answer replaces; None if there is none.
    """

    call: InFlight
    lookup: Lookup
    replaces: int | None = None


@dataclass(frozen=True, slots=True)
class Follow:
    """The caller reads a stream that another caller leads; it has become one of its readers."""

    stream: Any


Step = Callable[[], Any] | Wait | Pause
"""What a call in progress asks its driver to do."""
Steps = Generator[Step, Any, Any]
