"""`Router`: asks providers for answers, and knows what to do when they give none.

The doors differ in their driver alone: what a call is stands in `calls`, what it may have to
wait for in `gate` and `lines`, and how a request finds its providers in `plan`.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, TypeVar, Unpack
from weakref import WeakSet

import httpx

from semcache.config.flags import Flags
from semcache.errors import ConfigError
from semcache.keys.parse import RequestFields
from semcache.keys.parse import request as make_request
from semcache.providers.protocols import DirectProvider, Provider
from semcache.router import drivers, routing
from semcache.router.calls import Calls, RoutedCall
from semcache.router.clients import Clients
from semcache.router.gate import Admission, AdmissionState
from semcache.router.plan import Plans
from semcache.router.queues import RateLimiter
from semcache.router.rate_limits import Limit
from semcache.router.resilience import BreakerRules, BreakerState, Retry
from semcache.router.routing import Route, Target
from semcache.router.steps import Timeouts
from semcache.telemetry.events import BreakerEvent, Event, Hook, Hooks, logging_hook
from semcache.types import Chunk, Completion, Request

UNSET: Any = object()

M = TypeVar("M", bound=Callable[..., Any])
_IGNORE = "__semcache_ignore__"


def _door(method: M) -> M:
    """How long one is ready to wait changes no answer; `@cached` looks at this."""
    setattr(method, _IGNORE, frozenset({"deadline"}))
    return method


class Router:
    """Several providers behind one interface.

    Safe to use from many threads, tasks and event loops. See `router.routing` for how a request
    finds its provider, `router.resilience` and `router.rate_limits` for what happens when it fails.

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
        self._deadline = deadline
        self._hooks = Hooks(hooks)
        self._clock, self._draw = clock, draw
        self._sleep, self._asleep = sleep, asleep
        self._lines = RateLimiter(clock)
        self._plans.check_names(limits or {}, "limits")
        places = concurrency if isinstance(concurrency, Mapping) else {}
        self._plans.check_names(places, "concurrency")
        self._gates = {
            name: Admission(
                provider,
                limits=(limits or {}).get(name, ()),
                places=concurrency if isinstance(concurrency, int) else places.get(name),
                breaker=breaker,
                retry=retry,
                lines=self._lines,
                on_state_change=self._breaker_turned,
                clock=clock,
            )
            for name, provider in self.providers.items()
        }
        self._calls = Calls(
            self._plans,
            self._gates,
            retry=retry,
            timeouts=timeouts,
            on_event=self._on_event,
            clock=clock,
            wall=wall,
            draw=draw,
        )
        self._clients = Clients(transport, async_transport)
        _open_routers.add(self)

    # ------------------------------------------------------------------------- asking

    @_door
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
        steps = self._calls.steps(self._trip(prompt, fields, deadline, stream=False))
        answer: Completion = drivers.run(steps, self._blocking())
        return answer

    @_door
    async def acomplete(
        self,
        prompt: str | Request | None = None,
        *,
        deadline: float | None = UNSET,
        **fields: Unpack[RequestFields],
    ) -> Completion:
        """`complete` for tasks."""
        steps = self._calls.steps(self._trip(prompt, fields, deadline, stream=False))
        answer: Completion = await drivers.arun(steps, self._tasks())
        return answer

    @_door
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
        steps = self._calls.steps(self._trip(prompt, fields, deadline, stream=True))
        yield from drivers.stream(steps, self._blocking())

    @_door
    async def astream(
        self,
        prompt: str | Request | None = None,
        *,
        deadline: float | None = UNSET,
        **fields: Unpack[RequestFields],
    ) -> AsyncIterator[Chunk]:
        """`stream` for tasks."""
        steps = self._calls.steps(self._trip(prompt, fields, deadline, stream=True))
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

    def state(self) -> dict[str, AdmissionState]:
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
    ) -> RoutedCall:
        if isinstance(prompt, Request):
            task_type = fields.get("task_type")
            if set(fields) - {"task_type"}:
                raise ConfigError(f"A Request already says everything; leave out {sorted(fields)}.")
            request = prompt if task_type is None else replace(prompt, task_type=task_type)
        else:
            request = make_request(prompt, **fields)
        seconds = self._deadline if deadline is UNSET else deadline
        return RoutedCall(
            request,
            stream,
            stream and self.flags.enabled("streaming_enabled"),
            routing.prompt_tokens(request),
            routing.answer_tokens(request),
            None if seconds is None else self._clock() + seconds,
        )

    def _on_event(self, event: Event) -> None:
        self._hooks.emit(event)  # its listeners may change

    def _breaker_turned(self, provider: str, state: BreakerState) -> None:
        self._on_event(BreakerEvent(provider, state))

    def _blocking(self) -> drivers.Blocking:
        return drivers.Blocking(self._clients.blocking, sleep=self._sleep)

    def _tasks(self) -> drivers.Tasks:
        return drivers.Tasks(self._clients.of_loop(), sleep=self._asleep)


_open_routers: WeakSet[Router] = WeakSet()


def _after_fork() -> None:
    for router in list(_open_routers):
        router.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
