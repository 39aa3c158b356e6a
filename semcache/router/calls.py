"""One call from start to end: choosing targets, waiting for admission, asking, retrying.

A call is a generator of steps and does no I/O itself: a driver (see `drivers`) performs the
steps, either blocking or async. `routing.attempt_steps` decides the order of the attempts,
and each provider's `Admission` decides when an attempt may be made.
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
from semcache.providers.failures import redact
from semcache.providers.protocols import DirectProvider, Provider
from semcache.router import routing
from semcache.router.admission import Admission
from semcache.router.plan import RoutePlanner
from semcache.router.prices import priced
from semcache.router.resilience import Retry, Verdict
from semcache.router.routing import Attempt, StepResult, Stop, Target
from semcache.router.steps import (
    DirectCall,
    Drain,
    Emit,
    Exchange,
    NextChunk,
    NextEvent,
    OpenDirectStream,
    OpenStream,
    Sleep,
    Steps,
    Timeouts,
)
from semcache.telemetry.events import RouteEvent
from semcache.types import AttemptReport, AttemptResult, Chunk, Completion, Request, Usage


@dataclass(slots=True)
class RoutedCall:
    """A request on its way through the router, and its progress.

    Attributes:
        chunks: whether the caller wants the answer in chunks.
        live: whether providers are asked to stream their answers.
        prompt_tokens, answer_tokens: estimates, to be counted against rate limits.
        deadline: in seconds of the router's clock; None means no deadline.
        attempts: the attempts so far.
        emitted: whether text has been handed out, so that no other provider can be tried.
        on_first_text: called before the first text is handed out.
    """

    request: Request
    chunks: bool
    live: bool
    prompt_tokens: int
    answer_tokens: int
    deadline: float | None
    attempts: list[AttemptReport] = field(default_factory=list)
    emitted: bool = False
    on_first_text: Callable[[], None] = lambda: None

    def emit(self, text: str) -> Emit:
        """The step that hands text to the caller."""
        if not self.emitted:
            self.emitted = True
            self.on_first_text()
        return Emit(Chunk(text))


class Calls:
    """Creates the steps of a router's calls.

    Args:
        planner: finds the targets of a request.
        admissions: the admission to each provider, by the provider's name.
        on_event: called with a `RouteEvent` for each attempt.
        clock: monotonic, in seconds.
        wall: seconds since the epoch.
        draw: uniform in [0, 1).
    """

    def __init__(
        self,
        planner: RoutePlanner,
        admissions: Mapping[str, Admission],
        *,
        retry: Retry,
        timeouts: Timeouts,
        on_event: Callable[[RouteEvent], None],
        clock: Callable[[], float],
        wall: Callable[[], float],
        draw: Callable[[], float],
    ) -> None:
        self._planner = planner
        self._admissions = admissions
        self._retry = retry
        self._timeouts = timeouts
        self._on_event = on_event
        self._clock, self._wall, self._draw = clock, wall, draw

    def steps(self, call: RoutedCall) -> Steps:
        """All steps of a call; returns the completion."""
        targets = self._planner.targets(call.request, call.prompt_tokens, self._draw())
        steps = routing.attempt_steps(targets, self._retry, call.deadline)
        result: Any = None
        while True:
            try:
                step = steps.send(result)
            except StopIteration as stop:
                if stop.value.reason == "rejected":
                    raise stop.value.error from None
                raise self._failure(stop.value, call) from stop.value.error
            error: SemcacheError | None = None
            if isinstance(step, Attempt):
                try:
                    return (yield from self._attempt(step, call))
                except (ProviderError, BreakerOpenError) as failed:
                    if call.emitted and not self._past_deadline(call):
                        raise
                    if call.emitted:
                        raise self._failure(Stop("deadline", failed), call) from failed
                    error = failed
            else:
                yield Sleep(step.seconds)
            result = StepResult(self._clock(), self._draw(), error)

    def _attempt(self, attempt: Attempt, call: RoutedCall) -> Steps:
        """Call one provider, once it admits the call."""
        target = attempt.target
        admission = self._admissions[target.provider]
        start, waited = self._clock(), 0.0
        try:
            token = yield from admission.enter(
                retry=attempt.number > 1,
                tokens=call.prompt_tokens + call.answer_tokens,
                deadline=call.deadline,
            )
            waited = token.waited
            call.on_first_text = token.on_first_text
            verdict: Verdict = "neutral"
            completion: Completion | None = None
            try:
                completion = yield from self._ask(target, call)
                verdict = "good"
            except UnavailableError:
                verdict = "fault"
                raise
            finally:
                token.release(verdict, None if completion is None else _total_tokens(completion))
        except BaseException as error:
            self._report(call, target, start, waited, error)
            raise
        self._report(call, target, start, waited, None)
        price_list = self._planner.providers[target.provider].price_list
        completion = replace(
            completion,
            text=_encodable(completion.text),
            provider=target.provider,
            model=completion.model or target.model,
            usage=_priced_usage(completion, target, price_list),
            attempts=tuple(call.attempts),
        )
        if call.chunks:
            if completion.text and not call.emitted:
                yield Emit(Chunk(completion.text))
            yield Emit(Chunk("", completion))
        return completion

    def _ask(self, target: Target, call: RoutedCall) -> Steps:
        """Get the answer of one provider; its failures become a `ProviderError`."""
        provider = self._planner.providers[target.provider]
        left = None if call.deadline is None else call.deadline - self._clock()
        try:
            if self._planner.uses_http(provider):
                return (yield from self._ask_over_http(provider, target, call, left))
            return (yield from self._ask_directly(provider, target, call, left))
        except ProviderError as error:
            raise error.asked(target.model) from None
        except httpx.HTTPError as error:
            # Hide the original error: its traceback holds the request headers, and so the key.
            raise _transport_failure(error, target) from None

    def _ask_over_http(
        self, provider: Provider, target: Target, call: RoutedCall, left: float | None
    ) -> Steps:
        http_request = provider.build(call.request, model=target.model, stream=call.live)
        timeouts = self._timeouts.within(left)
        reply = yield (OpenStream if call.live else Exchange)(http_request, timeouts)
        if not 200 <= reply.status < 300:
            raise provider.error(reply, now=self._wall())
        if not call.live or reply.content_type != "text/event-stream":
            return provider.read(reply)
        reader = provider.reader()
        try:
            while not reader.ended and (event := (yield NextEvent())) is not None:
                if text := reader.feed(event):
                    yield call.emit(_encodable(text))
            if reader.ended:
                yield Drain()
        except httpx.HTTPError:
            with suppress(UnavailableError):
                return reader.finish()  # the answer was complete before the connection failed
            raise
        return reader.finish()

    def _ask_directly(
        self, provider: DirectProvider, target: Target, call: RoutedCall, left: float | None
    ) -> Steps:
        if not call.live:
            return (yield DirectCall(provider, call.request, target.model, left))
        yield OpenDirectStream(provider, call.request, target.model, left)
        completion: Completion | None = None
        while (chunk := (yield NextChunk())) is not None:
            completion = chunk.completion or completion
            if chunk.text:
                yield call.emit(_encodable(chunk.text))
        if completion is None:
            raise UnavailableError("its stream ended without an answer", provider=target.provider)
        return completion

    def _failure(self, stop: Stop, call: RoutedCall) -> SemcacheError:
        """The error for a call that no provider has answered."""
        after = getattr(stop.error, "retry_after", None)
        kind: type[RouteExhaustedError] = RouteExhaustedError
        reason = "No provider could answer."
        if stop.reason == "deadline" or self._past_deadline(call):
            kind, reason = DeadlineExceededError, "The deadline passed before an answer arrived."
        return kind(reason, attempts=call.attempts, retry_after=after)

    def _past_deadline(self, call: RoutedCall) -> bool:
        return call.deadline is not None and self._clock() >= call.deadline

    def _report(
        self,
        call: RoutedCall,
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
        call.attempts.append(report)
        self._on_event(RouteEvent(call.request.namespace, call.request.task_type, report))


def _total_tokens(completion: Completion) -> int | None:
    counts = (completion.usage.prompt_tokens, completion.usage.completion_tokens)
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _encodable(text: str) -> str:
    """The text with lone surrogates replaced: JSON may contain them, but UTF-8 cannot."""
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


def _transport_failure(error: httpx.HTTPError, target: Target) -> ProviderError:
    if isinstance(error, httpx.LocalProtocolError | httpx.UnsupportedProtocol):
        # Without httpx's own message, which may quote a header.
        return RejectedError(
            f"the request cannot be sent ({type(error).__name__})",
            provider=target.provider,
            model=target.model,
            status=None,
        )
    reason = redact(str(error), ()) or "no details given"
    return UnavailableError(
        f"{type(error).__name__}: {reason}", provider=target.provider, model=target.model
    )


def _priced_usage(completion: Completion, target: Target, price_list: str | None) -> Usage:
    """The usage with its cost, priced by the model that answered, or else by the one asked for."""
    usage = completion.usage
    for model in dict.fromkeys((completion.model or target.model, target.model)):
        usage = priced(usage, model=model, price_list=price_list)
    return usage
