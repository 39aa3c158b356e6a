"""Who is asked, in which order, and how often: rules, and the walk along them.

A rule is a `Route`; the first one that fits a request gives the targets to try, in order.
A request that names a model is only rerouted by a rule that speaks of that model; one that
names none, only by a rule that speaks of none.

`walk` is a generator that knows no provider, no clock and no network. It yields what is to
be done, `Attempt` or `Pause`, is told how it went, and ends with why it gave up; whoever
drives it stops when an attempt succeeds::

    Attempt --answered--------------------------> the driver stops
            --rejected, the request's fault-----> Stop: nobody else is asked
            --rejected for another reason-------> the next target
            --held back here, breaker open------> the next target
            --rate limited, unavailable---------> Pause, Attempt again; after the last
                                                  attempt, or where the pause would be too
                                                  long, the next target
    no target left, or the deadline has passed -> Stop
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
"""Known to every router; users add their own by naming them in a route."""

_CHARS_PER_TOKEN = 4
"""Of English, roughly; estimates are corrected by the usage that comes back."""
_MEDIA_TOKENS = 1_000
_ANSWER_TOKENS = 256
"""What an answer is taken to be where no maximum is given."""


@dataclass(frozen=True, slots=True)
class Target:
    """A provider and a model of it.

    Attributes:
        provider: the provider's name.
        model: "": the model that the request names, or else the provider's own default.
        weight: how often it is asked first, relative to the other targets with a weight.
    """

    provider: str
    model: str = ""
    weight: float | None = None

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read "provider", "provider/model" or "provider/model@weight".

        Raises:
            ConfigError: it is none of these.
        """
        name, _, last = text.strip().rpartition("@")
        weight = _weight(last) if name else None
        provider, _, model = (text.strip() if weight is None else name).partition("/")
        if not provider or "@" in provider:
            raise ConfigError(
                f'target {text!r} is not "provider/model" or "provider/model@weight" (weights are '
                f"0 to {_MOST_WEIGHT:g})."
            )
        return cls(provider, model, weight)

    def __str__(self) -> str:
        return f"{self.provider}/{self.model}" if self.model else self.provider


@dataclass(frozen=True, slots=True)
class Route:
    """A rule: requests that fit all its conditions try its targets in order.

    Attributes:
        targets: who is tried; those with weights take turns at being first.
        task_type: of the request; None: any.
        model: a pattern such as "gpt-4*" for the model that the request names; None: only
            requests that name none.
        min_tokens, max_tokens: the prompt's estimated length.
        when: asked with the request.
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

    def fits(self, request: Request, tokens: int) -> bool:
        """Whether a request of so many prompt tokens goes this way."""
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
        """The conditions in words."""
        said = [
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
        return "route for " + (", ".join(said) or "everything else")


_MOST_WEIGHT = 1000.0


def _weight(text: str) -> float | None:
    """A weight; None for what belongs to the model's name ("@20240620")."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value <= _MOST_WEIGHT else None


def choose(routes: Sequence[Route], request: Request, tokens: int) -> Route | None:
    """The first route that a request fits."""
    return next((route for route in routes if route.fits(request, tokens)), None)


def ordered(targets: Sequence[Target], draw: float) -> tuple[Target, ...]:
    """Targets in the order to try them: one of those with weights, drawn, goes first."""
    weights = [target.weight or 0.0 for target in targets]
    total, left = sum(weights), draw * sum(weights)
    if total <= 0:
        return tuple(targets)
    chosen = max(place for place, weight in enumerate(weights) if weight > 0)
    for place, weight in enumerate(weights):
        left -= weight
        if left < 0:
            chosen = place
            break
    return (targets[chosen], *targets[:chosen], *targets[chosen + 1 :])


def prompt_tokens(request: Request) -> int:
    """About how many tokens the prompt is; never 0."""
    chars = sum(_chars(part) for message in request.messages for part in message.parts)
    if request.tools is not None:
        chars += len(repr(request.tools))
    return max(1, min(chars, MAX_PROMPT_CHARS) // _CHARS_PER_TOKEN)


def answer_tokens(request: Request) -> int:
    """About how many tokens the answer takes of a limit: the most that is asked for."""
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


# --------------------------------------------------------------------------- the walk


@dataclass(frozen=True, slots=True)
class Attempt:
    """Ask this target, for the `number`th time (from 1)."""

    target: Target
    number: int


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Report:
    """How a step went.

    Attributes:
        now: when it ended (seconds). draw: uniform in [0, 1).
        error: why an attempt failed; None after a pause.
    """

    now: float
    draw: float
    error: SemcacheError | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """The walk is over without an answer."""

    reason: Literal["rejected", "exhausted", "deadline"]
    error: SemcacheError | None = None


Step: TypeAlias = Attempt | Pause


def walk(
    targets: Sequence[Target], retry: Retry, deadline: float | None
) -> Generator[Step, Report, Stop]:
    """Try the targets in order; see the head of the module. `deadline` is in seconds."""
    last: SemcacheError | None = None
    for target in targets:
        for number in range(1, retry.attempts + 1):
            report = yield Attempt(target, number)
            last = _worth_telling(last, report.error)
            if deadline is not None and report.now >= deadline:
                return Stop("deadline", last)
            error = report.error
            if isinstance(error, RejectedError) and not error.elsewhere:
                return Stop("rejected", error)
            if number == retry.attempts or not _may_pass(error, retry):
                break
            assert isinstance(error, ProviderError)
            pause = retry.pause(number, report.draw, error.retry_after)
            if deadline is not None and report.now + pause >= deadline:
                break  # there may be time for somebody else
            yield Pause(pause)
    return Stop("exhausted", last)


def _may_pass(error: SemcacheError | None, retry: Retry) -> bool:
    """Whether asking the same target again, soon, may help."""
    if not isinstance(error, RateLimitedError | UnavailableError) or error.held_back:
        return False
    return error.retry_after is None or error.retry_after <= retry.patience


def _worth_telling(last: SemcacheError | None, error: SemcacheError | None) -> SemcacheError | None:
    """What a provider said tells more than that it was not asked."""
    if isinstance(last, ProviderError) and not isinstance(error, ProviderError):
        return last
    return error


def with_model(target: Target, model: str) -> Target:
    """A target with its model filled in."""
    return replace(target, model=model)
