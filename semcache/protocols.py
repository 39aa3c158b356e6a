"""The seams of semcache: what an embedder, an index, a store, a policy and a provider must do.

Each docstring is a contract, and one suite of tests under `tests/contracts` holds
every implementation to it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from semcache.errors import ProviderError
    from semcache.types import (
        Candidate,
        Chunk,
        Completion,
        Decision,
        Entry,
        Held,
        Neighbour,
        NewEntry,
        Observation,
        Position,
        Request,
        Selection,
        Serve,
        Vector,
    )
    from semcache.wire import HTTPReply, HTTPRequest, ServerEvent


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into vectors of length 1, so that an inner product is the cosine.

    - The same text gives the same vector, whatever other texts are embedded beside it.
    - May be called from many threads at once.
    - Raises `EmbedderError` when it cannot; never returns some of the rows.
    """

    @property
    def fingerprint(self) -> str:
        """Names model, weights and form. Equal fingerprints: vectors may be compared."""
        ...

    @property
    def dimension(self) -> int:
        """Length d of a vector."""
        ...

    @property
    def window(self) -> int | None:
        """The most tokens of a text that reach its vector; None: no limit known."""
        ...

    @property
    def local(self) -> bool:
        """It computes in this process, so that more calls at once do not make it faster."""
        ...

    def load(self) -> None:
        """Get ready to embed; may take seconds. Calling it again does nothing."""
        ...

    def count_tokens(self, text: str) -> int:
        """How many tokens of the window `text` takes, were the window endless."""
        ...

    def embed(self, texts: Sequence[str]) -> Vector:
        """Return float32[n, d], row i for texts[i], each of Euclidean length 1."""
        ...


class Index(Protocol):
    """Finds the nearest vectors within one scope. Holds nothing that the store does not.

    - Ids are given once and never again; scopes are opaque bytes.
    - `search` never returns an id of another scope, nor one removed before it began.
    - May be called from many threads at once.
    """

    @property
    def dimension(self) -> int:
        """Length d of a vector; 0 before the first."""
        ...

    def tolerance(self, scope: bytes) -> float:
        """How far a similarity found in this scope may be off; 0.0: they are exact."""
        ...

    def add(self, entry_id: int, scope: bytes, vector: Vector) -> None:
        """Make float32[d] findable in `scope` at once. A known id is left as it is."""
        ...

    def add_many(self, ids: Sequence[int], scopes: Sequence[bytes], vectors: Vector) -> None:
        """`add` for n rows: vectors is float32[n, d]."""
        ...

    def remove(self, ids: Iterable[int]) -> None:
        """Forget these ids at once. Unknown ids are passed over."""
        ...

    def retain(self, ids: NDArray[np.int64], up_to: int) -> None:
        """Forget all but these (int64[n], in order), as far as they are not above `up_to`."""
        ...

    def search(self, scope: bytes, vector: Vector, k: int, spare: int = 0) -> list[Neighbour]:
        """Up to k nearest of `scope` by cosine similarity, the nearest first.

        spare: so many more, of those that were looked at anyway.
        """
        ...

    def __len__(self) -> int:
        """How many vectors can be found."""
        ...

    def __contains__(self, entry_id: int) -> bool: ...

    def ids(self) -> NDArray[np.int64]:
        """int64[n]: the ids of all vectors that can be found, in order."""
        ...

    def wait(self) -> None:
        """Until nothing is being built beside the traffic."""
        ...

    @property
    def due(self) -> bool:
        """So much has changed that `IndexFiles.merge` should be called."""
        ...


class Store(Protocol):
    """The truth: entries, their vectors, counters. Everything else is derived from it.

    - When `add` or `delete` returns, the change survives the death of the process.
    - One call is one transaction: it happens whole or not at all.
    - May be called from many threads; other processes may use the same store.
    - Raises `StoreError`, naming the file, when it cannot.
    """

    def get_exact(self, exact_key: bytes) -> Entry | None:
        """The entry with this key, expired or not, or None."""
        ...

    def get_many(self, ids: Sequence[int]) -> dict[int, Entry]:
        """Those of the entries that exist."""
        ...

    def get_with_vectors(self, ids: Sequence[int]) -> dict[int, tuple[Entry, bytes | None]]:
        """The same, each with its vector as it is stored, if it has one."""
        ...

    @property
    def name(self) -> str:
        """What the store is called in messages."""
        ...

    def add(self, entry: NewEntry, vector: Vector | None, fingerprint: str | None) -> int:
        """Store an entry, in place of one with the same exact key; return its new id.

        Ids grow and are never given twice. vector: float32[d] or None; fingerprint: the
        embedder that made it. Raises `IndexMismatchError`, and stores nothing, if the
        store's vectors come from another embedder.
        """
        ...

    def ids(self, selection: Selection) -> list[int]:
        """Ids of what is selected."""
        ...

    def delete(self, selection: Selection, limit: int | None = None) -> list[int]:
        """Delete what is selected (at most `limit`); return the ids."""
        ...

    def evict(
        self, order: str, count: int, *, spare: int, namespace: str | None = None
    ) -> list[int]:
        """Delete the first `count` entries in this order, never `spare`; return their ids.

        Looks at no others than it deletes. namespace: of this one's only.
        """
        ...

    def totals(self, namespace: str | None = None) -> tuple[int, int]:
        """(entries, bytes of their texts and vectors) of one namespace or all, not counted."""
        ...

    def meta(self, name: str) -> str | None:
        """A fact about the store: "fingerprint", "dimension", "store_id"."""
        ...

    def revision(self) -> int:
        """A number that changes, for this thread, when anybody has committed. Cheap."""
        ...

    def revision_seen(self) -> int | None:
        """What this thread has noted with `mark_revision`."""
        ...

    def mark_revision(self, revision: int) -> None:
        """Note that everything up to this revision has been taken over."""
        ...

    def embedded_ids(self) -> NDArray[np.int64]:
        """int64[n]: ids of all entries that have a vector, in order."""
        ...

    def vectors(self, ids: Sequence[int]) -> dict[int, bytes]:
        """The stored vectors of those that have one, in a form of `semcache.vectors`."""
        ...

    def position(self) -> Position:
        """How far the store has come, and whose vectors it holds."""
        ...

    def vectors_after(self, entry_id: int) -> Iterator[tuple[int, bytes, bytes]]:
        """(id, scope, vector) of all entries with one and a larger id; see `semcache.vectors`."""
        ...

    def deletions_after(
        self, sequence: int, up_to: int | None = None
    ) -> tuple[list[int], int] | None:
        """(ids deleted since `sequence`, the newest sequence or `up_to`).

        None: too long ago to know.
        """
        ...

    def add_up(self, counters: Mapping[str, float], hits: Mapping[int, tuple[int, float]]) -> None:
        """Add to counters by name, and to hits by id: (how many, the last: s since the epoch)."""
        ...

    def size_of(self, entry: NewEntry, vector: Vector | None) -> int:
        """The bytes that an entry counts for in `totals`."""
        ...

    def hold(self) -> None:
        """Before a fork: nobody is in the middle of a write until `let_go`.

        A lock within SQLite that is held during a fork is held in the child for ever. Waits
        for a second at most.
        """
        ...

    def let_go(self) -> None:
        """After the fork, in the parent."""
        ...

    def after_fork(self) -> None:
        """In a child process: forget connections and locks of the parent."""
        ...

    def close(self) -> None:
        """Give back files and connections. Later calls raise `StoreError`."""
        ...


class Lease(Protocol):
    """The right to ask the model for a request, among all processes."""

    def release(self, *, kept: bool) -> None:
        """Let the others look, or ask. kept False: the answer was not one to keep.

        Raises nothing.
        """
        ...


class Leases(Protocol):
    """Who asks the model for which request, among all processes.

    - One holder at a time, as long as it lives; what a dead one holds can be taken over.
    - May be called from many threads. Raises `StoreError` when it cannot.
    """

    def take(self, key: bytes, scope: bytes, vector: Vector | None) -> Lease | Held:
        """The lease, or who holds it. `vector`: what near questions may find it by."""
        ...

    def look(self, key: bytes) -> Held | None:
        """Who holds the lease; None: nobody."""
        ...

    def take_over(self, key: bytes, dead: Held) -> Lease | None:
        """The lease of a holder that looks like this still; None: it does not."""
        ...

    def near(self, scope: bytes, vector: Vector, floor: float) -> bytes | None:
        """The key of the lease for the nearest question of a scope, if it is near enough."""
        ...

    def hold(self) -> None:
        """As `Store.hold`."""
        ...

    def let_go(self) -> None:
        """After the fork, in the parent."""
        ...

    def after_fork(self) -> None:
        """In a child process: what the parent holds is the parent's."""
        ...

    def close(self) -> None:
        """Give the file back. Later calls raise `StoreError`."""
        ...


class Policy(Protocol):
    """Decides whether a candidate may be served. Pure: same arguments, same decision."""

    @property
    def k(self) -> int:
        """How many candidates it wants to see."""
        ...

    @property
    def floor(self) -> float:
        """Neighbours less similar than this need not be shown to it."""
        ...

    def decide(self, candidates: Sequence[Candidate], draw: float) -> Decision:
        """Judge fresh candidates, the nearest first; draw is uniform in [0, 1)."""
        ...


class Verifier(Protocol):
    """Looks at two questions and says how likely one answer serves both.

    - The same pair gives the same number. May be called from many threads at once.
    - Raises `EmbedderError` when it cannot.
    """

    def load(self) -> None:
        """Get ready; may take seconds. Calling it again does nothing."""
        ...

    def logits(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """log-odds that (stored, asked) ask for the same, for each pair."""
        ...


@runtime_checkable
class Judge(Protocol):
    """Compares a stored answer with a fresh one to the same question.

    - Called in the background, one call at a time; it may ask a model, and take its time.
    - Returns None where it is not sure: that is no label. An exception is none either.
    """

    def judge(self, question: str, stored: Completion, fresh: Completion) -> bool | None:
        """Whether the stored answer would have done in the fresh one's place."""
        ...


class Ledger(Protocol):
    """Remembers what was learned, and what was served for people to look at.

    - One call is one transaction. May be called from many threads; other processes may write.
    - Raises `StoreError` when it cannot.
    """

    def observe(self, observations: Sequence[Observation], serves: Sequence[Serve]) -> None:
        """Append observations, and what was served; the oldest serves are let go."""
        ...

    def observations_after(self, number: int, limit: int) -> list[tuple[int, Observation]]:
        """(number, observation) with larger numbers, in their order."""
        ...

    def last_observation(self) -> int:
        """The largest number; 0: there is none."""
        ...

    def serve(self, lookup_id: str) -> Serve | None:
        """What a lookup served, while it is remembered."""
        ...

    def unreviewed(self, limit: int) -> list[Serve]:
        """Serves that nobody has judged, drawn at random."""
        ...

    def refuted(self) -> set[tuple[int, str]]:
        """(entry id, question) of serves that somebody called wrong."""
        ...

    def reviewed(self, lookup_id: str, right: bool) -> None:
        """Note what was said of a serve."""
        ...

    def meta(self, name: str) -> str | None:
        """A fact about the store."""
        ...

    def set_meta(self, name: str, value: str) -> None:
        """Note a fact about the store."""
        ...


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
