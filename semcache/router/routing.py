"""Routes: which targets are tried for a request, in which order, and how often.

The first `Route` that matches a request supplies the targets to try, in order. A request
that names a model is only matched by routes with a model pattern; one that names no model,
only by routes without one.

`attempt_steps` is a generator that knows no provider, no clock and no network. It yields the
next step, `Attempt` or `Pause`, receives its result, and returns the reason when it gives
up. Its caller stops as soon as an attempt succeeds::

    Attempt --answered----------------------------> the caller stops
            --rejected: the request is at fault---> Stop: no other target is tried
            --rejected for another reason---------> the next target
            --held back locally, breaker open-----> the next target
            --rate limited, unavailable-----------> Pause, then Attempt again; after the last
                                                    attempt, or if the pause would be too
                                                    long, the next target
    no target left, or the deadline has passed ---> Stop
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Literal, TypeAlias

from semcache.errors import (
    ConfigError,
    ProviderError,
    RateLimitedError,
    RejectedError,
    SemcacheError,
    UnavailableError,
)
from semcache.keys.parse import MAX_PROMPT_CHARS
from semcache.router.resilience import Retry
from semcache.types import Part, Request, TextPart, ToolCallPart, ToolResultPart

TASK_TYPES = ("complex_reasoning", "bulk_processing", "long_context", "general")
"""Task types that every router knows; a route that names another one adds it."""

_CHARS_PER_TOKEN = 4
"""A rough average for English; the usage that the provider reports corrects the estimates."""
_MEDIA_TOKENS = 1_000
_ANSWER_TOKENS = 256
"""The estimated length of an answer if the request sets no maximum."""


@dataclass(frozen=True, slots=True)
class Target:
    """A provider and one of its models.

    Attributes:
        provider: the provider's name.
        model: the model's name; "" means the model that the request names, or else the
            provider's default model.
        weight: how often it is tried first, relative to the other targets with a weight.
    """

    provider: str
    model: str = ""
    weight: float | None = None

    @classmethod
    def parse(cls, text: str) -> Target:
        """Parse "provider", "provider/model" or "provider/model@weight".

        Raises:
            ConfigError: the text has none of these forms.
        """
        name, _, suffix = text.strip().rpartition("@")
        weight = _parse_weight(suffix) if name else None
        provider, _, model = (text.strip() if weight is None else name).partition("/")
        if not provider or "@" in provider:
            raise ConfigError(
                f'target {text!r} is not "provider/model" or "provider/model@weight" (with a '
                f"weight from 0 to {_MAX_WEIGHT:g})."
            )
        return cls(provider, model, weight)

    def __str__(self) -> str:
        return f"{self.provider}/{self.model}" if self.model else self.provider


@dataclass(frozen=True, slots=True)
class Route:
    """Requests that match all conditions of a route try its targets in order.

    Attributes:
        targets: the targets to try; one of those with a weight is drawn to go first.
        task_type: the request's task type; None matches any.
        model: a pattern such as "gpt-4*" for the model that the request names; None matches
            only requests that name no model.
        min_tokens, max_tokens: bounds on the prompt's estimated length; None means unbounded.
        when: a predicate of the request.

    Raises:
        ConfigError: there are no targets.
    """

    targets: tuple[Target, ...]
    task_type: str | None = None
    model: str | None = None
    min_tokens: int | None = None
    max_tokens: int | None = None
    when: Callable[[Request], bool] | None = None

    def __post_init__(self) -> None:
        if not self.targets:
            raise ConfigError(f"The {self.describe()} has no targets.")

    def matches(self, request: Request, tokens: int) -> bool:
        """Whether the route applies to a request with this many prompt tokens."""
        if request.model:
            if self.model is None or not fnmatchcase(request.model, self.model):
                return False
        elif self.model is not None:
            return False
        return (
            self.task_type in (None, request.task_type)
            and (self.min_tokens is None or tokens >= self.min_tokens)
            and (self.max_tokens is None or tokens <= self.max_tokens)
            and (self.when is None or self.when(request))
        )

    def describe(self) -> str:
        """The conditions as text, for messages."""
        conditions = [
            f"{name} {value}"
            for name, value in (
                ("task type", self.task_type),
                ("model", self.model),
                ("from", None if self.min_tokens is None else f"{self.min_tokens:,} tokens"),
                ("up to", None if self.max_tokens is None else f"{self.max_tokens:,} tokens"),
                ("if", None if self.when is None else getattr(self.when, "__name__", "predicate")),
            )
            if value is not None
        ]
        return "route for " + (", ".join(conditions) or "requests that name no model")


_MAX_WEIGHT = 1000.0


def _parse_weight(text: str) -> float | None:
    """A weight; None if the text is part of the model's name ("@20240620")."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value <= _MAX_WEIGHT else None


def choose(routes: Sequence[Route], request: Request, tokens: int) -> Route | None:
    """The first route that matches a request; None if none does."""
    return next((route for route in routes if route.matches(request, tokens)), None)


def ordered(targets: Sequence[Target], draw: float) -> tuple[Target, ...]:
    """The targets in the order to try them: one with a weight is drawn to go first.

    Args:
        draw: uniform in [0, 1).
    """
    weights = [target.weight or 0.0 for target in targets]
    total, left = sum(weights), draw * sum(weights)
    if total <= 0:
        return tuple(targets)
    chosen = max(index for index, weight in enumerate(weights) if weight > 0)
    for index, weight in enumerate(weights):
        left -= weight
        if left < 0:
            chosen = index
            break
    return (targets[chosen], *targets[:chosen], *targets[chosen + 1 :])


def prompt_tokens(request: Request) -> int:
    """The estimated number of tokens of the prompt, at least 1."""
    chars = sum(_chars(part) for message in request.messages for part in message.parts)
    if request.tools is not None:
        chars += len(repr(request.tools))
    return max(1, min(chars, MAX_PROMPT_CHARS) // _CHARS_PER_TOKEN)


def answer_tokens(request: Request) -> int:
    """The number of tokens to reserve for the answer: the most that the request allows."""
    return next(
        (
            value
            for name in ("max_completion_tokens", "max_tokens", "max_output_tokens")
            if isinstance(value := request.params.get(name), int) and value > 0
        ),
        _ANSWER_TOKENS,
    )


def _chars(part: Part) -> int:
    match part:
        case TextPart(text):
            return len(text)
        case ToolCallPart(_, name, arguments):
            return len(name) + len(str(arguments))
        case ToolResultPart(_, parts):
            return sum(map(_chars, parts))
        case _:
            return _MEDIA_TOKENS * _CHARS_PER_TOKEN


# -------------------------------------------------------------------------- attempts


@dataclass(frozen=True, slots=True)
class Attempt:
    """Call this target for the `number`th time (from 1)."""

    target: Target
    number: int


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait for this many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class StepResult:
    """The result of a step that did not produce an answer.

    Attributes:
        now: when it ended (seconds).
        draw: uniform in [0, 1), for the jitter of the next pause.
        error: why an attempt failed; None after a pause.
    """

    now: float
    draw: float
    error: SemcacheError | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """Why there are no further attempts.

    Attributes:
        reason: the request was rejected, all targets failed, or the deadline has passed.
        error: the error to report.
    """

    reason: Literal["rejected", "exhausted", "deadline"]
    error: SemcacheError | None = None


Step: TypeAlias = Attempt | Pause


def attempt_steps(
    targets: Sequence[Target], retry: Retry, deadline: float | None
) -> Generator[Step, StepResult, Stop]:
    """Try the targets in order, as the module describes. `deadline` is in seconds."""
    last: SemcacheError | None = None
    for target in targets:
        for number in range(1, retry.attempts + 1):
            result = yield Attempt(target, number)
            last = _more_informative(last, result.error)
            if deadline is not None and result.now >= deadline:
                return Stop("deadline", last)
            error = result.error
            if isinstance(error, RejectedError) and not error.elsewhere:
                return Stop("rejected", error)
            if number == retry.attempts or not _is_transient(error, retry):
                break
            assert isinstance(error, ProviderError)
            pause = retry.pause(number, result.draw, error.retry_after)
            if deadline is not None and result.now + pause >= deadline:
                break  # another target may still answer in time
            yield Pause(pause)
    return Stop("exhausted", last)


def _is_transient(error: SemcacheError | None, retry: Retry) -> bool:
    """Whether calling the same target again soon may help."""
    if not isinstance(error, RateLimitedError | UnavailableError) or error.held_back:
        return False
    return error.retry_after is None or error.retry_after <= retry.patience


def _more_informative(
    last: SemcacheError | None, error: SemcacheError | None
) -> SemcacheError | None:
    """The newer error, except that an open breaker does not hide a provider's own error."""
    if isinstance(last, ProviderError) and not isinstance(error, ProviderError):
        return last
    return error


def with_model(target: Target, model: str) -> Target:
    """The target with its model filled in."""
    return replace(target, model=model)
