"""From a miss to another caller's answer, or to the right to ask the model; and after it.

Equal requests under way wait for one of them: in this process for its flight, in others for
its lease. Whoever waits looks again afterwards; a fault of the leases leaves everybody to
himself, which costs calls and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from semcache.engine.cache import Cache
from semcache.engine.call_options import Codec, Lead, Pause, Served, Step, Terms, Wait
from semcache.engine.single_flight import Crashed, Flight, Flights, Landed, Left, is_inside
from semcache.errors import StoreError
from semcache.types import Completion, Entry, Held, Lookup, Source

if TYPE_CHECKING:
    from semcache.backends.base import Leases
    from semcache.types import Vector

DEAD_AFTER = 5.0
"""Seconds without a sign of life after which another process's call is taken over."""
LOOK_EVERY = (0.005, 0.1)
"""Seconds between looks at another process's call: at first, and at most."""
PATIENCE = 120.0
"""Seconds that equal requests wait for a call under way before they ask for themselves."""
STREAM_PATIENCE = 10.0
"""The same for a stream, whose reader may have stopped reading."""


def served_by(cache: Cache, terms: Terms, lookup: Lookup) -> Served | None:
    """The value of a hit; None for a miss, and for a stored value of another kind."""
    if terms.noted is not None:
        terms.noted(lookup)
    entry = lookup.entry
    if entry is None:
        return None
    return _loaded(cache, terms.codec, entry.completion, lookup.tier, lookup)


def joining(
    cache: Cache, flights: Flights, lookup: Lookup, ended: int, terms: Terms
) -> Generator[Step, Any, Served | Lead]:
    """From a miss to another's value, or to leading the flight.

    `ended` is `flights.ended` from before the lookup.
    """
    patience = STREAM_PATIENCE if terms.streams else PATIENCE
    key = lookup.query.exact_key
    alone = terms.refresh or terms.coalesce == "off" or lookup.decision.reason == "caching_off"
    if terms.coalesce == "semantic" and not alone:
        near = yield from _after_near(cache, flights, lookup, terms, patience)
        if near is not None:
            return near
    while True:
        if alone:
            return Lead(Flight(key), lookup)
        flight, leads = flights.join(key, lookup)
        if leads:
            break
        if flight.mine:  # waiting for oneself would never end
            return Lead(Flight(key), lookup)
        outcome = yield Wait(flight, patience)
        match outcome:
            case Landed(completion) if (copy := _copied(cache, terms, completion)) is not None:
                cache.tally.note("shared")
                return copy
            case Crashed(error):
                raise error
            case Left() if flight.ended:
                continue  # the leader is gone: one of those who waited takes its place
            case _:  # not for sharing, or too slow: everybody for himself, side by side
                return Lead(Flight(key), lookup)
    try:
        whose = yield from leased(cache, flight, lookup, terms, patience)
        if flights.ended == ended and whose == "nobody's":
            return Lead(flight, lookup)
        # Another call has ended since the lookup: perhaps with this very answer.
        served = yield from _shared(cache, terms, partial(cache.fresh_exact, lookup.query))
    except BaseException:
        flights.end(flight, Left())
        raise
    if served is None:
        return Lead(flight, lookup)
    flights.end(flight, Left())
    return served


def _after_near_lease(cache: Cache, lookup: Lookup, patience: float) -> Generator[Step, Any, bool]:
    """Wait for another process's call for nearly the same question; False: there is none."""
    leases, vector, scope = cache.leases, lookup.vector, lookup.query.scope.digest
    if leases is None or vector is None:
        return False
    pause, waited = LOOK_EVERY[0], 0.0
    try:
        key = yield partial(leases.near, scope, vector, cache.floor)
        if key is None or key == lookup.query.exact_key or is_inside(key):
            return False
        first = held = yield partial(leases.look, key)
        while held is not None and held.owner == first.owner and waited < patience:
            yield Pause(pause)
            waited, pause = waited + pause, min(2 * pause, LOOK_EVERY[1])
            held = yield partial(leases.look, key)
            if held == first and waited >= DEAD_AFTER:
                break
    except StoreError as error:
        cache.fault("lease", error)
        return False
    return True


def leased(
    cache: Cache, flight: Flight, lookup: Lookup, terms: Terms, patience: float
) -> Generator[Step, Any, Literal["nobody's", "ours", "another's"]]:
    """Lead among all processes too, or wait until another's call for the same has ended.

    Returns whose the lease is: another's, if waiting took too long; nobody's, where there are
    no leases or they fail. Whoever held it before has stored its answer before letting it go.
    """
    leases, key = cache.leases, lookup.query.exact_key
    if leases is None or is_inside(key):
        return "nobody's"
    vector = lookup.vector if terms.coalesce == "semantic" else None
    take = partial(_taken, leases, flight, lookup.query.scope.digest, vector)
    pause, waited, still = LOOK_EVERY[0], 0.0, 0.0
    try:
        held = yield take
        while held is not None:
            if held.void or waited >= patience:
                return "another's"
            yield Pause(pause)
            waited, still = waited + pause, still + pause
            pause = min(2 * pause, LOOK_EVERY[1])
            now = yield partial(leases.look, key)
            if now is None:
                held = yield take
            elif now != held:
                held, still = now, 0.0
            elif still >= DEAD_AFTER:
                held, still = (yield partial(_taken_over, leases, flight, held)), 0.0
    except StoreError as error:
        cache.fault("lease", error)
        return "nobody's"
    return "ours"


def _taken(leases: Leases, flight: Flight, scope: bytes, vector: Vector | None) -> Held | None:
    """Take the flight's lease; return who holds it if another does.

    The flight is told here and not by the walk, which may be cancelled meanwhile.
    """
    lease = leases.take(flight.key, scope, vector)
    if isinstance(lease, Held):
        return lease
    flight.hold(lease)
    return None


def _taken_over(leases: Leases, flight: Flight, dead: Held) -> Held | None:
    lease = leases.take_over(flight.key, dead)
    if lease is None:
        return leases.look(flight.key) or dead
    flight.hold(lease)
    return None


def _shared(
    cache: Cache, terms: Terms, stored: Callable[[], Entry | None]
) -> Generator[Step, Any, Served | None]:
    """What another call has stored since the lookup, if it can be had."""
    entry = yield stored
    served = None if entry is None else _loaded(cache, terms.codec, entry.completion, "shared")
    if served is not None:
        cache.tally.note("shared")
    return served


def _after_near(
    cache: Cache, flights: Flights, lookup: Lookup, terms: Terms, patience: float
) -> Generator[Step, Any, Served | None]:
    """Wait for a call under way for nearly the same question, and look again.

    Whether its answer may be served is for the policy to say, as always.
    """
    near = flights.near(lookup, cache.floor)
    if near is not None and near.mine:
        return None
    if near is not None:
        yield Wait(near, patience)
    elif not (yield from _after_near_lease(cache, lookup, patience)):
        return None
    return (yield from _shared(cache, terms, partial(cache.fresh_semantic, lookup)))


def _copied(cache: Cache, terms: Terms, completion: Completion | None) -> Served | None:
    """A follower's own copy of the leader's answer; None if it cannot have one."""
    if completion is None:
        return None
    try:
        own = replace(completion, payload=deepcopy(completion.payload), attempts=())
    except Exception as error:
        cache.fault("codec", error)
        return None
    return _loaded(cache, terms.codec, own, "shared")


def _loaded(
    cache: Cache,
    codec: Codec,
    completion: Completion,
    source: Source | None,
    lookup: Lookup | None = None,
) -> Served | None:
    try:
        if codec.tells_source:
            completion = replace(completion, served_from=source)
        return Served(codec.load(completion), lookup)
    except Exception as error:
        cache.fault("codec", error)
        return None


def closing(
    cache: Cache, flights: Flights, lead: Lead, terms: Terms, value: Any, judged: Any
) -> Generator[Step, Any, Entry | None]:
    """Store the model's answer and end the flight. `judged` is what `store_if` is asked with."""
    completion: Completion | None = None
    entry: Entry | None = None
    try:
        completion = dumped(cache, terms, value, judged)
        if completion is not None:
            entry = yield partial(
                cache.store, lead.lookup, completion, ttl=terms.ttl, keep=terms.keep
            )
    finally:
        flights.end(lead.flight, Landed(completion, kept=entry is not None))
    return entry


def dumped(cache: Cache, terms: Terms, value: Any, judged: Any) -> Completion | None:
    if value is None:
        cache.tally.note("not_stored:empty")
        return None
    try:
        if terms.store_if is not None and not terms.store_if(judged):
            cache.tally.note("not_stored:store_if")
            return None
        return terms.codec.dump(value)
    except Exception as error:
        cache.fault("codec", error)
        return None
