"""What one call works with: its options, its values, and the steps that it asks for."""

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
    """How a caller's values are stored and given back."""

    tells_source: bool
    """Its values have room for where a completion was served from."""

    def keep(self, chunk: Any) -> Any:
        """What `dump` needs of a chunk, taken before the caller can change the chunk."""
        ...

    def dump(self, value: Any) -> Completion:
        """A value, or the list of a stream's kept chunks. Raises `TypeError` if it cannot be."""
        ...

    def load(self, completion: Completion) -> Any:
        """A value of the caller's own. Raises `TypeError` or `ValueError` for another's."""
        ...


class CompletionCodec:
    """For callers whose values are completions."""

    tells_source = True

    def keep(self, chunk: Any) -> Any:
        return chunk

    def dump(self, value: Completion) -> Completion:
        if not isinstance(value, Completion):
            raise TypeError(f"send gave a {type(value).__name__}, not a semcache.Completion")
        return value

    def load(self, completion: Completion) -> Completion:
        return completion


COMPLETIONS = CompletionCodec()


class TextChunks:
    """For streams of text."""

    tells_source = False

    def keep(self, chunk: str) -> str:
        return chunk

    def dump(self, value: Sequence[str]) -> Completion:
        return Completion("".join(value), payload=list(value), payload_kind="chunks")

    def load(self, completion: Completion) -> list[str]:
        if completion.payload_kind == "chunks" and all(
            isinstance(chunk, str) for chunk in completion.payload
        ):
            return list(completion.payload)
        return [completion.text]


TEXT_CHUNKS = TextChunks()


@dataclass(frozen=True, slots=True)
class CallOptions:
    """How one call is looked up and stored.

    Attributes:
        codec: from values to completions and back.
        ttl: of the answer; see `Retention`.
        store_if: called with the value; the answer is not stored if it returns False.
        storage: which answers are stored; None for the cache's own policy.
        streams: values are lists of chunks.
        coalesce: which calls under way to wait for: those for the "exact" same request, also
            those for a question that may be served the same answer ("semantic"), or none ("off").
        refresh: ask the model even if an answer is stored, and store the new one.
        on_lookup: called with the lookup when it has ended.
    """

    codec: Codec = COMPLETIONS
    ttl: GivenTTL = UNSET
    store_if: Callable[[Any], bool] | None = None
    storage: StoragePolicy | None = None
    streams: bool = False
    coalesce: Coalesce = "exact"
    refresh: bool = False
    on_lookup: Callable[[Lookup], None] | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """A step: wait for a call; after `patience` seconds count it as abandoned."""

    call: InFlight
    patience: float | None


@dataclass(frozen=True, slots=True)
class Pause:
    """A step: wait so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Served:
    """The call ends here, with this value. `lookup`: a hit that may be audited or renewed."""

    value: Any
    lookup: Lookup | None = None


@dataclass(frozen=True, slots=True)
class Lead:
    """The caller is to ask the model, and to end the call in flight.

    Attributes:
        replaces: id of a stale entry that the answer replaces.
    """

    call: InFlight
    lookup: Lookup
    replaces: int | None = None


Step = Callable[[], Any] | Wait | Pause
"""What a call in progress asks its driver to do."""
Steps = Generator[Step, Any, Any]
