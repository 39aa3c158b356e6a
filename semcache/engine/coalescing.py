"""After a miss: wait for another caller's answer to the same request, or lead the call.

Of concurrent equal requests, one calls the model and the others wait: within a process for the
call in flight, across processes for the lease of that call. After waiting for a lease, they look
up again. If leases fail, callers proceed without coalescing, which only costs extra calls.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from semcache.engine.call_options import CallOptions, Codec, Follow, Lead, Pause, Served, Step, Wait
from semcache.engine.lookup import is_skipped
from semcache.engine.single_flight import Abandoned, Completed, Failed, InFlight, is_inside
from semcache.engine.value_codecs import OtherShapeError
from semcache.errors import StoreError
from semcache.telemetry.counters import Counter, Labelled
from semcache.types import Completion, Entry, LeaseHolder, Lookup, Source

if TYPE_CHECKING:
    from semcache.backends.base import Leases
    from semcache.engine.engine import Engine
    from semcache.types import Vector

DEAD_AFTER = 5.0
"""Seconds without a heartbeat after which another process's call is taken over."""
POLL_INTERVALS = (0.005, 0.1)
"""Seconds between polls of another process's lease: the first interval, and the longest."""
PATIENCE = 120.0
"""Seconds to wait for a call in flight before asking the model independently."""
STREAM_PATIENCE = 10.0
"""`PATIENCE` for a stream, which may be stuck because its consumer has stopped reading."""


def served_by(engine: Engine, options: CallOptions, lookup: Lookup) -> Served | None:
    """The value of a hit; None for a miss, or if the codec cannot load the stored value."""
    if options.report is not None:
        options.report.lookup(lookup)
    entry = lookup.entry
    if entry is None:
        return None
    return _load(engine, options.codec, entry.completion, lookup.tier, lookup)


def join(
    engine: Engine,
    lookup: Lookup,
    ended: int,
    options: CallOptions,
    stream: Any = None,
    *,
    blocking: bool = True,
) -> Generator[Step, Any, Served | Lead | Follow]:
    """After a miss, get another caller's value or become the leader of the call.

    Args:
        ended: `engine.in_flight.ended`, read before the lookup.
        stream: the stream to share with others, if the caller becomes the leader.
        blocking: whether waiting blocks the thread, and with it its event loop.
    """
    patience = STREAM_PATIENCE if options.streams else PATIENCE
    in_flight, key = engine.in_flight, lookup.query.exact_key
    alone = options.refresh or options.coalesce == "off" or _is_private(engine, lookup, stream)
    if options.coalesce == "semantic" and not alone:
        near = yield from _wait_for_similar(engine, lookup, options, patience)
        if near is not None:
            return near
    while True:
        if alone:
            return Lead(InFlight(key, stream=stream), lookup)
        call, leads = in_flight.join(key, lookup, stream)
        if leads:
            break
        if type(call.stream) is type(stream) and _may_follow(call.stream):
            return Follow(call.stream)
        if call.mine or (blocking and call.led_by_this_thread):  # waiting would never end
            return Lead(InFlight(key, stream=stream), lookup)
        if call.stream is not None:
            call.stream.drain()
        outcome = yield Wait(call, patience)
        match outcome:
            case Completed(completion) if (
                copy := _shared_copy(engine, options, completion)
            ) is not None:
                engine.telemetry.counters.increment(Counter.SHARED)
                return copy
            case Failed(error):
                raise error
            case Abandoned() if call.ended:
                continue  # the leader is gone: one of its followers takes over
            case _:  # the answer cannot be shared, or is too slow: do not coalesce
                return Lead(InFlight(key, stream=stream), lookup)
    try:
        holder = yield from take_lease(engine, call, lookup, options, patience)
        if in_flight.ended == ended and holder == "nobody":
            return Lead(call, lookup)
        # A call has ended since the lookup, perhaps with the answer to this request.
        again = partial(engine.lookups.fresh_exact, lookup.query)
        served = yield from _stored_meanwhile(engine, options, again)
    except BaseException:
        in_flight.end(call, Abandoned())
        raise
    if served is None:
        return Lead(call, lookup)
    in_flight.end(call, Abandoned())
    return served


def _is_private(engine: Engine, lookup: Lookup, stream: Any) -> bool:
    """Whether a call is not shared: caching is off, or it may hold personal data.

    What a stream holds is known only at its end, so that no stream is shared if answers are
    searched for personal data.
    """
    if lookup.decision.reason == "caching_off" or is_skipped(lookup.query):
        return True
    return stream is not None and engine.recorder.searches_answers


def _may_follow(stream: Any) -> bool:
    """Become a reader of a stream, unless it has ended or belongs to another event loop."""
    return stream is not None and bool(stream.enter())


def _wait_for_similar(
    engine: Engine, lookup: Lookup, options: CallOptions, patience: float
) -> Generator[Step, Any, Served | None]:
    """Wait for a call in flight for a similar question, and look up again.

    Verification decides, as always, whether its answer may be served.
    """
    near = engine.in_flight.near(lookup, engine.verification.floor)
    if near is not None and near.mine:
        return None
    if near is not None:
        yield Wait(near, patience)
    elif not (yield from _wait_for_similar_lease(engine, lookup, patience)):
        return None
    again = partial(engine.lookups.fresh_semantic, lookup)
    return (yield from _stored_meanwhile(engine, options, again))


def _wait_for_similar_lease(
    engine: Engine, lookup: Lookup, patience: float
) -> Generator[Step, Any, bool]:
    """Wait for another process's call for a similar question; False if there is none."""
    leases, vector, scope = engine.leases, lookup.vector, lookup.query.scope.digest
    if leases is None or vector is None:
        return False
    pause, waited = POLL_INTERVALS[0], 0.0
    try:
        key = yield partial(leases.near, scope, vector, engine.verification.floor)
        if key is None or key == lookup.query.exact_key or is_inside(key):
            return False
        first = holder = yield partial(leases.look, key)
        while holder is not None and holder.owner == first.owner and waited < patience:
            yield Pause(pause)
            waited, pause = waited + pause, min(2 * pause, POLL_INTERVALS[1])
            holder = yield partial(leases.look, key)
            if holder == first and waited >= DEAD_AFTER:
                break
    except StoreError as error:
        engine.telemetry.fault("lease", error)
        return False
    return True


def take_lease(
    engine: Engine, call: InFlight, lookup: Lookup, options: CallOptions, patience: float
) -> Generator[Step, Any, Literal["nobody", "us", "another"]]:
    """Become the leader across processes, or wait until another process's call has ended.

    Returns who holds the lease: "us" if the caller leads now, "another" if that process ended
    without storing its answer or the wait took too long, "nobody" if leases are off or fail.
    A holder stores its answer before it releases the lease.
    """
    leases, key = engine.leases, lookup.query.exact_key
    if leases is None or is_inside(key):
        return "nobody"
    vector = lookup.vector if options.coalesce == "semantic" else None
    take = partial(_take, leases, call, lookup.query.scope.digest, vector)
    pause, waited, silent = POLL_INTERVALS[0], 0.0, 0.0
    try:
        holder = yield take
        while holder is not None:
            if holder.void or waited >= patience:
                return "another"
            yield Pause(pause)
            waited, silent = waited + pause, silent + pause
            pause = min(2 * pause, POLL_INTERVALS[1])
            now = yield partial(leases.look, key)
            if now is None:
                holder = yield take
            elif now != holder:
                holder, silent = now, 0.0
            elif silent >= DEAD_AFTER:
                holder, silent = (yield partial(_take_over, leases, call, holder)), 0.0
    except StoreError as error:
        engine.telemetry.fault("lease", error)
        return "nobody"
    return "us"


def _take(
    leases: Leases, call: InFlight, scope: bytes, vector: Vector | None
) -> LeaseHolder | None:
    """Take the lease for a call; return the holder if another process has it.

    The lease is attached here, not by the caller, which may be cancelled before it gets the lease.
    """
    lease = leases.take(call.key, scope, vector)
    if isinstance(lease, LeaseHolder):
        return lease
    call.hold(lease)
    return None


def _take_over(leases: Leases, call: InFlight, dead: LeaseHolder) -> LeaseHolder | None:
    """Take the lease from a dead holder; return the new holder if another process was faster."""
    lease = leases.take_over(call.key, dead)
    if lease is None:
        return leases.look(call.key) or dead
    call.hold(lease)
    return None


def _stored_meanwhile(
    engine: Engine, options: CallOptions, look_up: Callable[[], Entry | None]
) -> Generator[Step, Any, Served | None]:
    """The value that another call has stored since the lookup, if it may be served."""
    entry = yield look_up
    if entry is None:
        return None
    served = _load(engine, options.codec, entry.completion, "shared")
    if served is not None:
        engine.telemetry.counters.increment(Counter.SHARED)
    return served


def _shared_copy(
    engine: Engine, options: CallOptions, completion: Completion | None
) -> Served | None:
    """A follower's own copy of the leader's answer; None if it cannot be copied."""
    if completion is None:
        return None
    try:
        own = replace(completion, payload=deepcopy(completion.payload), attempts=())
    except Exception as error:
        engine.telemetry.fault("codec", error)
        return None
    return _load(engine, options.codec, own, "shared")


def _load(
    engine: Engine,
    codec: Codec,
    completion: Completion,
    source: Source | None,
    lookup: Lookup | None = None,
) -> Served | None:
    """The value of a completion; None if the codec cannot load it.

    That is a fault, unless the completion only has the other shape (a stream, or a single value).
    """
    try:
        if codec.tells_source:
            completion = replace(completion, served_from=source)
        return Served(codec.load(completion), lookup)
    except OtherShapeError:
        return None
    except Exception as error:
        engine.telemetry.fault("codec", error)
        return None


def finish(
    engine: Engine, lead: Lead, options: CallOptions, value: Any, checked: Any
) -> Generator[Step, Any, Entry | None]:
    """Store the model's answer and end the call in flight.

    Args:
        checked: the value to call `store_if` with.
    """
    completion: Completion | None = None
    entry: Entry | None = None
    outcomes: list[str] = []

    def told(reason: str) -> None:
        outcomes.append(reason)
        if options.report is not None:
            options.report.recorded(reason)

    try:
        completion = dump(engine, options, value, checked)
        if completion is not None:
            entry = yield partial(
                engine.recorder.record,
                lead.lookup,
                completion,
                ttl=options.ttl,
                policy=options.storage,
                told=told,
            )
    finally:
        shared = None if "personal_data" in outcomes else completion
        engine.in_flight.end(lead.call, Completed(shared, kept=entry is not None))
    return entry


def dump(engine: Engine, options: CallOptions, value: Any, checked: Any) -> Completion | None:
    """A value as a completion; None if it must not or cannot be stored."""
    if value is None:
        _not_stored(engine, options, "empty")
        return None
    try:
        if options.store_if is not None and not options.store_if(checked):
            _not_stored(engine, options, "store_if")
            return None
        return options.codec.dump(value)
    except Exception as error:
        codec_fault(engine, options, error)
        return None


def _not_stored(engine: Engine, options: CallOptions, reason: str) -> None:
    engine.telemetry.counters.increment_labelled(Labelled.NOT_STORED, reason)
    if options.report is not None:
        options.report.recorded(reason)


def codec_fault(engine: Engine, options: CallOptions, error: BaseException) -> None:
    """Report that a value cannot be stored."""
    (options.report or engine.telemetry).fault("codec", error)
