"""One call, whole: choosing, waiting in line, asking, reading, trying again, giving up.

It is a generator and does nothing itself: a driver (see `drivers`) does what it yields,
blocking or for tasks. The order of attempts is `router.routing.walk`'s; what stands before
each of them is the provider's `Admission`'s.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import httpx

from semcache.errors import (
    BreakerOpenError,
    DeadlineExceededError,
    ProviderError,
    RateLimitedError,
    RejectedError,
    RouteExhaustedError,
    SemcacheError,
    UnavailableError,
)
from semcache.providers.failures import scrubbed
from semcache.providers.protocols import DirectProvider, Provider
from semcache.router import routing
from semcache.router.gate import Admission
from semcache.router.plan import Plans
from semcache.router.prices import priced
from semcache.router.resilience import Retry, Verdict
from semcache.router.routing import Attempt, Report, Stop, Target
from semcache.router.steps import (
    Call,
    Drain,
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
from semcache.telemetry.events import RouteEvent
from semcache.types import AttemptReport, AttemptResult, Chunk, Completion, Request, Usage


@dataclass(slots=True)
class RoutedCall:
    """What one call is, and what it has come to so far.

    Attributes:
        chunks: the caller wants the answer in pieces. live: providers are asked for pieces.
        prompt_tokens, answer_tokens: what it is taken to need of a limit.
        deadline: by the router's clock.
        emitted: a piece has been handed out: nobody else can be asked.
    """

    request: Request
    chunks: bool
    live: bool
    prompt_tokens: int
    answer_tokens: int
    deadline: float | None
    attempts: list[AttemptReport] = field(default_factory=list)
    emitted: bool = False
    first_words: Callable[[], None] = lambda: None

    def emit(self, text: str) -> Emit:
        """A piece of the answer, on its way to the caller."""
        if not self.emitted:
            self.emitted = True
            self.first_words()
        return Emit(Chunk(text))


class Calls:
    """Makes the steps of a router's calls.

    Args:
        told: hears of every attempt.
        clock: seconds, on a clock that does not step. wall: seconds since the epoch.
        draw: uniform in [0, 1).
    """

    def __init__(
        self,
        plans: Plans,
        gates: Mapping[str, Admission],
        *,
        retry: Retry,
        timeouts: Timeouts,
        on_event: Callable[[RouteEvent], None],
        clock: Callable[[], float],
        wall: Callable[[], float],
        draw: Callable[[], float],
    ) -> None:
        self._plans = plans
        self._gates = gates
        self._retry = retry
        self._timeouts = timeouts
        self._on_event = on_event
        self._clock, self._wall, self._draw = clock, wall, draw

    def steps(self, trip: RoutedCall) -> Steps:
        """Everything that a call is; returns the completion."""
        targets = self._plans.targets(trip.request, trip.prompt_tokens, self._draw())
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

    def _attempt(self, attempt: Attempt, trip: RoutedCall) -> Steps:
        """One call to one provider, with what stands before it."""
        target = attempt.target
        gate = self._gates[target.provider]
        start, waited = self._clock(), 0.0
        try:
            leave = yield from gate.enter(
                retry=attempt.number > 1,
                tokens=trip.prompt_tokens + trip.answer_tokens,
                deadline=trip.deadline,
            )
            waited = leave.waited
            trip.first_words = leave.answering
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
        price_list = self._plans.providers[target.provider].price_list
        completion = replace(
            completion,
            text=whole_text(completion.text),
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

    def _ask(self, target: Target, trip: RoutedCall) -> Steps:
        """The answer of one provider; errors of ours for its failures."""
        provider = self._plans.providers[target.provider]
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
        self, provider: Provider, target: Target, trip: RoutedCall, left: float | None
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
                    yield trip.emit(whole_text(text))
            if reader.ended:
                yield Drain()
        except httpx.HTTPError:
            with suppress(UnavailableError):
                return reader.finish()  # all of it had come
            raise
        return reader.finish()

    def _directly(
        self, provider: DirectProvider, target: Target, trip: RoutedCall, left: float | None
    ) -> Steps:
        if not trip.live:
            return (yield Call(provider, trip.request, target.model, left))
        yield OpenCall(provider, trip.request, target.model, left)
        completion: Completion | None = None
        while (chunk := (yield NextChunk())) is not None:
            completion = chunk.completion or completion
            if chunk.text:
                yield trip.emit(whole_text(chunk.text))
        if completion is None:
            raise UnavailableError("its stream ended without an answer", provider=target.provider)
        return completion

    def _failure(self, stop: Stop, trip: RoutedCall) -> SemcacheError:
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

    def _late(self, trip: RoutedCall) -> bool:
        return trip.deadline is not None and self._clock() >= trip.deadline

    def _note(
        self,
        trip: RoutedCall,
        target: Target,
        start: float,
        waited: float,
        error: BaseException | None,
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
        self._on_event(RouteEvent(trip.request.namespace, trip.request.task_type, report))


def _tokens(completion: Completion) -> int | None:
    counts = (completion.usage.prompt_tokens, completion.usage.completion_tokens)
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def whole_text(text: str) -> str:
    """Text that can be written down: halves of surrogate pairs, as JSON may hold them, are not."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def _result(error: BaseException | None) -> AttemptResult:
    if getattr(error, "held_back", False):
        return "held_back"
    match error:
        case None:
            return "answered"
        case GeneratorExit() | CancelledError():
            return "abandoned"
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
