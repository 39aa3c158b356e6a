"""`Router`: asks providers for answers, and knows what to do when they give none.

One generator, `_steps`, holds the whole of a call: choosing a route, waiting in line,
asking, reading, trying again, falling back, giving up. It does nothing itself; a driver
(see `drivers`) does what it yields, blocking or for tasks.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Unpack
from weakref import WeakSet

import httpx

from semcache.core import routing
from semcache.core.limits import Limit
from semcache.core.requests import RequestFields
from semcache.core.requests import request as make_request
from semcache.core.resilience import BreakerRules, BreakerState, Retry, Verdict
from semcache.core.routing import Attempt, Report, Route, Stop, Target
from semcache.errors import (
    BreakerOpenError,
    ConfigError,
    DeadlineExceededError,
    ProviderError,
    RateLimitedError,
    RejectedError,
    RouteExhaustedError,
    SemcacheError,
    UnavailableError,
)
from semcache.events import BreakerEvent, Hook, Hooks, RouteEvent, logging_hook
from semcache.flags import Flags
from semcache.prices import priced
from semcache.protocols import DirectProvider, Provider
from semcache.providers.failures import scrubbed
from semcache.router import drivers
from semcache.router.clients import Clients
from semcache.router.gate import Gate, GateState
from semcache.router.lines import Lines
from semcache.router.plan import Plans
from semcache.router.steps import (
    Call,
    Emit,
    Exchange,
    NextChunk,
    NextEvent,
    Open,
    OpenCall,
    Sleep,
    Steps,
    Timeouts,
)
from semcache.types import AttemptReport, AttemptResult, Chunk, Completion, Request, Usage

logger = logging.getLogger("semcache")

UNSET: Any = object()


@dataclass(slots=True)
class _Trip:
    """What one call is, and what it has come to so far.

    Attributes:
        chunks: the caller wants the answer in pieces. live: providers are asked for pieces.
        tokens: what it is taken to need of a limit. deadline: by the router's clock.
        emitted: a piece has been handed out: nobody else can be asked.
    """

    request: Request
    chunks: bool
    live: bool
    tokens: int
    deadline: float | None
    attempts: list[AttemptReport] = field(default_factory=list)
    emitted: bool = False


class Router:
    """Several providers behind one interface.

    Safe to use from many threads, tasks and event loops. See `core.routing` for how a request
    finds its provider, `core.resilience` and `core.limits` for what happens when it fails.

    Args:
        providers: `Provider`s and `DirectProvider`s; the first answers what no route is for.
        routes: rules, the first that fits a request holds.
        limits: rate limits by the provider's name.
        concurrency: calls under way at once, by the provider's name, or one number for each.
        retry, breaker: for every provider.
        timeouts: for one attempt.
        deadline: seconds for a call, with everything: waits, retries, all of a stream.
        flags: `streaming_enabled` and `use_deepseek_for_bulk` are looked at.
        hooks: called with a `RouteEvent` for each attempt and a `BreakerEvent` for each turn
            of a breaker.
        clock: seconds, on a clock that does not step. wall: seconds since the epoch.
        draw: uniform in [0, 1). sleep, asleep: wait so many seconds.
        transport, async_transport: for httpx, in tests.

    Raises:
        ConfigError: a setting is wrong, or speaks of a provider that is not there.
    """

    def __init__(
        self,
        providers: Sequence[Provider | DirectProvider],
        *,
        routes: Sequence[Route] = (),
        limits: Mapping[str, Sequence[Limit]] | None = None,
        concurrency: Mapping[str, int] | int | None = None,
        retry: Retry = Retry(),
        breaker: BreakerRules = BreakerRules(),
        timeouts: Timeouts = Timeouts(),
        deadline: float | None = 120.0,
        flags: Flags | None = None,
        hooks: Sequence[Hook] = (logging_hook,),
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
        sleep: Callable[[float], object] = time.sleep,
        asleep: Callable[[float], Any] = asyncio.sleep,
        transport: httpx.BaseTransport | None = None,
        async_transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        if deadline is not None and not deadline > 0:
            raise ConfigError(f"deadline is {deadline!r}; give seconds above 0, or None.")
        self.flags = flags or Flags()
        self._plans = Plans(providers, routes, self.flags)
        self.providers = self._plans.providers
        self.routes = tuple(routes)
        self._retry = retry
        self._timeouts = timeouts
        self._deadline = deadline
        self._hooks = Hooks(hooks)
        self._clock, self._wall, self._draw = clock, wall, draw
        self._sleep, self._asleep = sleep, asleep
        self._lines = Lines(clock)
        self._plans.check_names(limits or {}, "limits")
        places = concurrency if isinstance(concurrency, Mapping) else {}
        self._plans.check_names(places, "concurrency")
        self._gates = {
            name: Gate(
                provider,
                limits=(limits or {}).get(name, ()),
                places=concurrency if isinstance(concurrency, int) else places.get(name),
                breaker=breaker,
                retry=retry,
                lines=self._lines,
                turned=self._breaker_turned,
                clock=clock,
            )
            for name, provider in self.providers.items()
        }
        self._clients = Clients(transport, async_transport)
        _open_routers.add(self)

    # ------------------------------------------------------------------------- asking

    def complete(
        self,
        prompt: str | Request | None = None,
        *,
        deadline: float | None = UNSET,
        **fields: Unpack[RequestFields],
    ) -> Completion:
        """An answer, with who gave it, what it cost and the attempts it took.

        Args:
            prompt: a string, or a `Request`; or messages=[...] instead.
            deadline: seconds for the call, instead of the router's own.

        Raises:
            RequestError: the request cannot be used.
            ConfigError: nobody is there to answer it.
            RejectedError: the request itself is at fault.
            RouteExhaustedError: everybody was tried in vain; DeadlineExceededError: time is up.
        """
        steps = self._steps(self._trip(prompt, fields, deadline, stream=False))
        answer: Completion = drivers.run(steps, self._blocking())
        return answer

    async def acomplete(
        self,
        prompt: str | Request | None = None,
        *,
        deadline: float | None = UNSET,
        **fields: Unpack[RequestFields],
    ) -> Completion:
        """`complete` for tasks."""
        steps = self._steps(self._trip(prompt, fields, deadline, stream=False))
        answer: Completion = await drivers.arun(steps, self._tasks())
        return answer

    def stream(
        self,
        prompt: str | Request | None = None,
        *,
        deadline: float | None = UNSET,
        **fields: Unpack[RequestFields],
    ) -> Iterator[Chunk]:
        """An answer in pieces, as they arrive; the last one holds the whole `completion`.

        Until the first piece has come, providers are tried as in `complete`; after it, a
        failure is the caller's to know.

        Raises:
            UnavailableError: the stream broke off. Otherwise as `complete`.
        """
        steps = self._steps(self._trip(prompt, fields, deadline, stream=True))
        yield from drivers.stream(steps, self._blocking())

    async def astream(
        self,
        prompt: str | Request | None = None,
        *,
        deadline: float | None = UNSET,
        **fields: Unpack[RequestFields],
    ) -> AsyncIterator[Chunk]:
        """`stream` for tasks."""
        steps = self._steps(self._trip(prompt, fields, deadline, stream=True))
        async with aclosing(drivers.astream(steps, self._tasks())) as chunks:
            async for chunk in chunks:
                yield chunk

    # ------------------------------------------------------------------------- looking

    def plan(self, request: Request) -> tuple[Target, ...]:
        """Who would be asked, in order (a draw decides among weights).

        Raises:
            ConfigError: nobody is there for it.
        """
        return self._plans.targets(request, routing.prompt_tokens(request), self._draw())

    def state(self) -> dict[str, GateState]:
        """Breakers, limits and calls under way, by the provider's name."""
        return {name: gate.state() for name, gate in self._gates.items()}

    def listen(self, hook: Hook) -> None:
        """Add a listener."""
        self._hooks = Hooks((*self._hooks.all, hook))

    # -------------------------------------------------------------------------- ending

    def close(self) -> None:
        """Close idle connections. The router may be used again."""
        self._clients.close()

    async def aclose(self) -> None:
        """`close`, and the connections of this event loop."""
        await self._clients.aclose()

    def __enter__(self) -> Router:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def __aenter__(self) -> Router:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"Router({', '.join(self.providers)})"

    def after_fork(self) -> None:
        """In a child process: connections and calls are the parent's."""
        self._clients = self._clients.anew()
        self._lines.after_fork()
        for gate in self._gates.values():
            gate.after_fork()

    # -------------------------------------------------------------------- the whole call

    def _trip(
        self,
        prompt: str | Request | None,
        fields: RequestFields,
        deadline: float | None,
        *,
        stream: bool,
    ) -> _Trip:
        if isinstance(prompt, Request):
            task_type = fields.get("task_type")
            if set(fields) - {"task_type"}:
                raise ConfigError(f"A Request already says everything; leave out {sorted(fields)}.")
            request = prompt if task_type is None else replace(prompt, task_type=task_type)
        else:
            request = make_request(prompt, **fields)
        seconds = self._deadline if deadline is UNSET else deadline
        return _Trip(
            request,
            stream,
            stream and self.flags.enabled("streaming_enabled"),
            routing.call_tokens(request),
            None if seconds is None else self._clock() + seconds,
        )

    def _steps(self, trip: _Trip) -> Steps:
        """Everything that a call is; returns the completion."""
        tokens = routing.prompt_tokens(trip.request)
        targets = self._plans.targets(trip.request, tokens, self._draw())
        walk = routing.walk(targets, self._retry, trip.deadline)
        report: Any = None
        while True:
            try:
                step = walk.send(report)
            except StopIteration as stop:
                if stop.value.reason == "rejected":
                    raise stop.value.error from None
                raise self._failure(stop.value, trip) from stop.value.error
            error: SemcacheError | None = None
            if isinstance(step, Attempt):
                try:
                    return (yield from self._attempt(step, trip))
                except (ProviderError, BreakerOpenError) as failed:
                    if trip.emitted and not self._late(trip):
                        raise
                    if trip.emitted:
                        raise self._failure(Stop("deadline", failed), trip) from failed
                    error = failed
            else:
                yield Sleep(step.seconds)
            report = Report(self._clock(), self._draw(), error)

    def _attempt(self, attempt: Attempt, trip: _Trip) -> Steps:
        """One call to one provider, with what stands before it."""
        target = attempt.target
        gate = self._gates[target.provider]
        start, waited = self._clock(), 0.0
        try:
            leave = yield from gate.enter(
                retry=attempt.number > 1, tokens=trip.tokens, deadline=trip.deadline
            )
            waited = leave.waited
            verdict: Verdict = "neutral"
            completion: Completion | None = None
            try:
                completion = yield from self._ask(target, trip)
                verdict = "good"
            except UnavailableError:
                verdict = "fault"
                raise
            finally:
                leave.leave(verdict, None if completion is None else _tokens(completion))
        except BaseException as error:
            self._note(trip, target, start, waited, error)
            raise
        self._note(trip, target, start, waited, None)
        price_list = self.providers[target.provider].price_list
        completion = replace(
            completion,
            provider=target.provider,
            model=completion.model or target.model,
            usage=_usage(completion, target, price_list),
            attempts=tuple(trip.attempts),
        )
        if trip.chunks:
            if completion.text and not trip.emitted:
                yield Emit(Chunk(completion.text))
            yield Emit(Chunk("", completion))
        return completion

    def _ask(self, target: Target, trip: _Trip) -> Steps:
        """The answer of one provider; errors of ours for its failures."""
        provider = self.providers[target.provider]
        left = None if trip.deadline is None else trip.deadline - self._clock()
        try:
            if self._plans.over_http(provider):
                return (yield from self._over_http(provider, target, trip, left))
            return (yield from self._directly(provider, target, trip, left))
        except ProviderError as error:
            raise error.asked(target.model) from None
        except httpx.HTTPError as error:
            # Alone: frames below hold the headers of what was sent, and keys among them.
            raise _unreached(error, target) from None

    def _over_http(
        self, provider: Provider, target: Target, trip: _Trip, left: float | None
    ) -> Steps:
        sent = provider.build(trip.request, model=target.model, stream=trip.live)
        times = self._timeouts.within(left)
        reply = yield Open(sent, times) if trip.live else Exchange(sent, times)
        if not 200 <= reply.status < 300:
            raise provider.error(reply, now=self._wall())
        if not trip.live or reply.content_type != "text/event-stream":
            return provider.read(reply)
        reader = provider.reader()
        try:
            while not reader.ended and (event := (yield NextEvent())) is not None:
                if text := reader.feed(event):
                    trip.emitted = True
                    yield Emit(Chunk(text))
        except httpx.HTTPError:
            with suppress(UnavailableError):
                return reader.finish()  # all of it had come
            raise
        return reader.finish()

    def _directly(
        self, provider: DirectProvider, target: Target, trip: _Trip, left: float | None
    ) -> Steps:
        if not trip.live:
            return (yield Call(provider, trip.request, target.model, left))
        yield OpenCall(provider, trip.request, target.model, left)
        completion: Completion | None = None
        while (chunk := (yield NextChunk())) is not None:
            completion = chunk.completion or completion
            if chunk.text:
                trip.emitted = True
                yield Emit(Chunk(chunk.text))
        if completion is None:
            raise UnavailableError("its stream ended without an answer", provider=target.provider)
        return completion

    def _failure(self, stop: Stop, trip: _Trip) -> SemcacheError:
        """What a call in vain ends with."""
        after = getattr(stop.error, "retry_after", None)
        kind: type[RouteExhaustedError] = RouteExhaustedError
        said = "Nobody could answer."
        if stop.reason == "deadline" or self._late(trip):
            kind, said = (
                DeadlineExceededError,
                "The time for the call was up before an answer came.",
            )
        return kind(said, attempts=trip.attempts, retry_after=after)

    def _late(self, trip: _Trip) -> bool:
        return trip.deadline is not None and self._clock() >= trip.deadline

    def _note(
        self, trip: _Trip, target: Target, start: float, waited: float, error: BaseException | None
    ) -> None:
        report = AttemptReport(
            target.provider,
            target.model,
            _result(error),
            getattr(error, "status", None),
            max(0.0, self._clock() - start - waited),
            waited,
            "" if error is None else getattr(error, "detail", "") or str(error),
        )
        trip.attempts.append(report)
        self._hooks.emit(RouteEvent(trip.request.namespace, trip.request.task_type, report))

    def _breaker_turned(self, provider: str, state: BreakerState) -> None:
        self._hooks.emit(BreakerEvent(provider, state))

    def _blocking(self) -> drivers.Blocking:
        return drivers.Blocking(self._clients.blocking, sleep=self._sleep)

    def _tasks(self) -> drivers.Tasks:
        return drivers.Tasks(self._clients.of_loop, sleep=self._asleep)


for _door in (Router.complete, Router.acomplete, Router.stream, Router.astream):
    # How long one is ready to wait changes no answer; see `decorator`.
    _door.__semcache_ignore__ = frozenset({"deadline"})  # type: ignore[attr-defined]


def _tokens(completion: Completion) -> int | None:
    counts = (completion.usage.prompt_tokens, completion.usage.completion_tokens)
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _result(error: BaseException | None) -> AttemptResult:
    match error:
        case None:
            return "answered"
        case RateLimitedError():
            return "rate_limited"
        case UnavailableError():
            return "unavailable"
        case RejectedError():
            return "rejected"
        case BreakerOpenError():
            return "breaker_open"
        case _:
            return "failed"


def _unreached(error: httpx.HTTPError, target: Target) -> ProviderError:
    if isinstance(error, httpx.LocalProtocolError | httpx.UnsupportedProtocol):
        # Not its words: they may quote a header.
        return RejectedError(
            f"the request cannot be sent ({type(error).__name__})",
            provider=target.provider,
            model=target.model,
            status=None,
        )
    said = scrubbed(str(error), ()) or "no word of why"
    return UnavailableError(
        f"{type(error).__name__}: {said}", provider=target.provider, model=target.model
    )


def _usage(completion: Completion, target: Target, price_list: str | None) -> Usage:
    """With its cost, by the model that answered, or else by the one that was asked."""
    usage = completion.usage
    for model in dict.fromkeys((completion.model or target.model, target.model)):
        usage = priced(usage, model=model, price_list=price_list)
    return usage


_open_routers: WeakSet[Router] = WeakSet()


def _after_fork() -> None:
    for router in list(_open_routers):
        router.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
