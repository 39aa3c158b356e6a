"""`Router`: gets answers from several providers and handles their failures.

Its methods differ only in the driver they use. `calls` describes a call from start to end,
`admission` and `queues` what it may have to wait for, and `plan` how a request finds its
providers.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, TypeVar, Unpack

import httpx

from semcache.config.flags import Flags
from semcache.errors import ConfigError
from semcache.keys.parse import RequestFields
from semcache.keys.parse import request as make_request
from semcache.lifecycle import LIFECYCLE, Managed, Threads
from semcache.providers.protocols import DirectProvider, Provider
from semcache.router import drivers, routing
from semcache.router.admission import Admission, AdmissionState
from semcache.router.calls import Calls, RoutedCall
from semcache.router.clients import Clients
from semcache.router.plan import RoutePlanner
from semcache.router.queues import RateLimiter
from semcache.router.rate_limits import Limit
from semcache.router.resilience import BreakerRules, BreakerState, Retry
from semcache.router.routing import Route, Target
from semcache.router.steps import Steps, Timeouts
from semcache.telemetry.events import BreakerEvent, Event, Hook, Hooks, logging_hook
from semcache.types import Chunk, Completion, Request

UNSET: Any = object()

M = TypeVar("M", bound=Callable[..., Any])
_IGNORED_PARAMETERS = "__semcache_ignore__"


def _deadline_ignored(method: M) -> M:
    """Keep the deadline out of the key that `@cached` makes: it does not change the answer."""
    setattr(method, _IGNORED_PARAMETERS, frozenset({"deadline"}))
    return method


class Router(Managed):
    """Several providers behind one interface.

    Safe to use from many threads, tasks and event loops. `router.routing` describes how a
    request finds its provider, and `router.resilience` and `router.rate_limits` how failures
    and limits are handled.

    Args:
        providers: `Provider`s and `DirectProvider`s, in the order to try them for requests that
            match no route.
        routes: the first route that matches a request applies.
        limits: rate limits by the provider's name.
        concurrency: the most calls in flight at once, by the provider's name, or one number
            for each provider; None means unlimited.
        retry, breaker: retry and breaker settings, the same for every provider.
        timeouts: timeouts of one attempt.
        deadline: seconds for a whole call, including waits, retries and all of a stream; None
            means no deadline.
        flags: feature flags; the router reads `streaming_enabled` and those of
            `providers.preferences`.
        hooks: called with a `RouteEvent` for each attempt and a `BreakerEvent` for each state
            change of a breaker.
        clock: monotonic, in seconds.
        wall: seconds since the epoch.
        draw: random numbers, uniform in [0, 1).
        sleep, asleep: functions that wait for a number of seconds.
        transport, async_transport: httpx transports, for tests.

    Raises:
        ConfigError: a setting is invalid or names an unknown provider.
    """

    __semcache_key__ = "router"
    """Equal for all routers: answers depend on the request's model, not on the router."""

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
            raise ConfigError(f"deadline is {deadline!r}; it must be above 0 seconds, or None.")
        self.flags = flags or Flags()
        self._planner = RoutePlanner(providers, routes, self.flags)
        self.providers = self._planner.providers
        self.routes = tuple(routes)
        self._deadline = deadline
        self._hooks = Hooks(hooks)
        self._clock, self._draw = clock, draw
        self._sleep, self._asleep = sleep, asleep
        self._rate_limiter = RateLimiter(clock)
        self._planner.check_names(limits or {}, "limits")
        by_name = concurrency if isinstance(concurrency, Mapping) else {}
        self._planner.check_names(by_name, "concurrency")
        self._admissions = {
            name: Admission(
                provider,
                limits=(limits or {}).get(name, ()),
                max_concurrent=concurrency if isinstance(concurrency, int) else by_name.get(name),
                breaker=breaker,
                retry=retry,
                rate_limiter=self._rate_limiter,
                on_state_change=self._on_state_change,
                clock=clock,
            )
            for name, provider in self.providers.items()
        }
        self._calls = Calls(
            self._planner,
            self._admissions,
            retry=retry,
            timeouts=timeouts,
            on_event=self._on_event,
            clock=clock,
            wall=wall,
            draw=draw,
        )
        self._clients = Clients(transport, async_transport)
        self._drain_threads = Threads("semcache-drain", 4)
        LIFECYCLE.add(self)

    # ------------------------------------------------------------------------ calling

    @_deadline_ignored
    def complete(
        self,
        prompt: str | Request | None = None,
        *,
        deadline: float | None = UNSET,
        **fields: Unpack[RequestFields],
    ) -> Completion:
        """Get an answer, with its provider, its cost and the attempts it took.

        Args:
            prompt: a string or a `Request`; leave it out to pass messages=[...].
            deadline: seconds for the call, instead of the router's own deadline; None means no
                deadline.
            fields: the request's other fields, such as `model` or `task_type`.

        Raises:
            RequestError: the request is invalid.
            ConfigError: no provider can answer it.
            RejectedError: a provider rejected the request as invalid.
            RouteExhaustedError: all targets failed.
            DeadlineExceededError: the deadline passed before an answer arrived.
        """
        steps = self._steps(prompt, fields, deadline, stream=False)
        answer: Completion = drivers.run(steps, self._blocking_driver())
        return answer

    @_deadline_ignored
    async def acomplete(
        self,
        prompt: str | Request | None = None,
        *,
        deadline: float | None = UNSET,
        **fields: Unpack[RequestFields],
    ) -> Completion:
        """Like `complete`, without blocking."""
        steps = self._steps(prompt, fields, deadline, stream=False)
        answer: Completion = await drivers.arun(steps, self._async_driver())
        return answer

    @_deadline_ignored
    def stream(
        self,
        prompt: str | Request | None = None,
        *,
        deadline: float | None = UNSET,
        **fields: Unpack[RequestFields],
    ) -> Iterator[Chunk]:
        """Stream an answer in chunks; the last chunk holds the whole `completion`.

        Until the first text arrives, failures are handled as in `complete`. After it, a failure
        is raised to the caller, since another provider would start the answer again.

        Raises:
            UnavailableError: the stream broke off. Other errors as in `complete`.
        """
        steps = self._steps(prompt, fields, deadline, stream=True)
        yield from drivers.stream(steps, self._blocking_driver())

    @_deadline_ignored
    async def astream(
        self,
        prompt: str | Request | None = None,
        *,
        deadline: float | None = UNSET,
        **fields: Unpack[RequestFields],
    ) -> AsyncIterator[Chunk]:
        """Like `stream`, without blocking."""
        steps = self._steps(prompt, fields, deadline, stream=True)
        async with aclosing(drivers.astream(steps, self._async_driver())) as chunks:
            async for chunk in chunks:
                yield chunk

    # --------------------------------------------------------------------- inspecting

    def plan(self, request: Request) -> tuple[Target, ...]:
        """The targets that would be tried, in order (weighted targets are drawn each time).

        Raises:
            ConfigError: no provider can answer the request.
        """
        return self._planner.targets(request, routing.prompt_tokens(request), self._draw())

    def state(self) -> dict[str, AdmissionState]:
        """The state of breakers, limits and calls in flight, by the provider's name."""
        return {name: admission.state() for name, admission in self._admissions.items()}

    def listen(self, hook: Hook) -> None:
        """Add a hook."""
        self._hooks = Hooks((*self._hooks.all, hook))

    # ------------------------------------------------------------------------ closing

    def close(self) -> None:
        """Close idle connections. The router can still be used; it opens new ones."""
        self._clients.close()

    async def aclose(self) -> None:
        """Like `close`, and close the connections of the running event loop too."""
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
        """Forget the parent's connections and calls in a child process."""
        self._clients = self._clients.without_connections()
        self._drain_threads.after_fork()
        self._rate_limiter.after_fork()
        for admission in self._admissions.values():
            admission.after_fork()

    # ------------------------------------------------------------------------ internal

    def _steps(
        self,
        prompt: str | Request | None,
        fields: RequestFields,
        deadline: float | None,
        *,
        stream: bool,
    ) -> Steps:
        """The steps of one call, for a driver to perform."""
        if isinstance(prompt, Request):
            task_type = fields.get("task_type")
            if extra := sorted(set(fields) - {"task_type"}):
                raise ConfigError(
                    f"A Request cannot be combined with other fields; leave out {extra}."
                )
            request = prompt if task_type is None else replace(prompt, task_type=task_type)
        else:
            request = make_request(prompt, **fields)
        seconds = self._deadline if deadline is UNSET else deadline
        return self._calls.steps(
            RoutedCall(
                request,
                chunks=stream,
                live=stream and self.flags.enabled("streaming_enabled"),
                prompt_tokens=routing.prompt_tokens(request),
                answer_tokens=routing.answer_tokens(request),
                deadline=None if seconds is None else self._clock() + seconds,
            )
        )

    def _on_event(self, event: Event) -> None:
        self._hooks.emit(event)  # looked up at each event, since `listen` replaces the hooks

    def _on_state_change(self, provider: str, state: BreakerState) -> None:
        self._on_event(BreakerEvent(provider, state))

    def _blocking_driver(self) -> drivers.BlockingDriver:
        return drivers.BlockingDriver(
            self._clients.blocking, self._drain_threads, sleep=self._sleep
        )

    def _async_driver(self) -> drivers.AsyncDriver:
        return drivers.AsyncDriver(self._clients.of_running_loop(), sleep=self._asleep)
