"""Routes, weights and the order of attempts: pure functions, driven by hand."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcache.errors import (
    BreakerOpenError,
    ConfigError,
    RateLimitedError,
    RejectedError,
    SemcacheError,
    UnavailableError,
)
from semcache.keys.parse import request
from semcache.router import routing
from semcache.router.resilience import Retry
from semcache.router.routing import (
    Attempt,
    Pause,
    Route,
    StepResult,
    Stop,
    Target,
    attempt_steps,
    ordered,
)

A, B = Target("a", "m"), Target("b", "m")


def error(kind: str) -> SemcacheError | None:
    match kind:
        case "unavailable":
            return UnavailableError("x", provider="p", status=500)
        case "limited":
            return RateLimitedError("x", provider="p", status=429, retry_after=1.0)
        case "limited long":
            return RateLimitedError("x", provider="p", status=429, retry_after=1e6)
        case "rejected":
            return RejectedError("x", provider="p", status=400)
        case "no key":
            return RejectedError("x", provider="p", status=401)
        case "open":
            return BreakerOpenError(provider="p", retry_after=1.0)
    return None


def run(targets: Any, ends: list[str], retry: Retry = Retry(), deadline: Any = None) -> Any:
    """(the steps, how they stopped); attempts end as listed, and the last entry repeats."""
    generator = attempt_steps(targets, retry, deadline)
    steps, now, result, left = [], 0.0, None, list(ends)
    while True:
        try:
            step = generator.send(result)  # type: ignore[arg-type]
        except StopIteration as stop:
            return steps, stop.value
        steps.append(step)
        if isinstance(step, Pause):
            now += step.seconds
            result = StepResult(now, 0.5)
        else:
            result = StepResult(now, 0.5, error(left.pop(0) if len(left) > 1 else left[0]))


def attempts(steps: list[Any]) -> list[str]:
    return [f"{s.target.provider}{s.number}" for s in steps if isinstance(s, Attempt)]


@pytest.mark.parametrize(
    ("ends", "expected", "reason"),
    [
        (["unavailable"], ["a1", "a2", "a3", "b1", "b2", "b3"], "exhausted"),
        (["limited"], ["a1", "a2", "a3", "b1", "b2", "b3"], "exhausted"),
        (["limited long"], ["a1", "b1"], "exhausted"),
        (["rejected"], ["a1"], "rejected"),
        (["no key"], ["a1", "b1"], "exhausted"),
        (["open"], ["a1", "b1"], "exhausted"),
        (["unavailable", "rejected"], ["a1", "a2"], "rejected"),
        (["open", "unavailable", "no key"], ["a1", "b1", "b2"], "exhausted"),
    ],
)
def test_the_order_of_attempts(ends: list[str], expected: list[str], reason: str) -> None:
    """Which targets are tried, and how often, for each way that attempts end."""
    steps, stop = run((A, B), ends)
    assert attempts(steps) == expected
    assert stop.reason == reason


kinds = st.sampled_from(["unavailable", "limited", "limited long", "rejected", "no key", "open"])


@given(st.lists(kinds, min_size=1, max_size=30), st.integers(1, 5), st.floats(0.01, 100))
def test_the_attempts_end(ends: list[str], most: int, deadline: float) -> None:
    """No sequence of failures leads to endless attempts, or to a pause past the deadline."""
    retry = Retry(attempts=most)
    steps, stop = run((A, B), ends, retry, deadline)
    assert isinstance(stop, Stop)
    assert len(attempts(steps)) <= 2 * most
    assert sum(s.seconds for s in steps if isinstance(s, Pause)) < deadline
    for before, after in pairwise(steps):
        if isinstance(before, Pause):
            assert isinstance(after, Attempt)
            assert after.number > 1


def test_a_provider_s_error_is_reported_over_an_open_breaker() -> None:
    """An open breaker is less informative than the error that a provider returned before."""
    _, stop = run((A, B), ["no key", "open"])
    assert isinstance(stop.error, RejectedError)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=6), st.floats(0, 1, exclude_max=True))
def test_weights(weights: list[float], draw: float) -> None:
    """A target with a weight goes first, none is lost, and the others keep their order."""
    targets = tuple(Target("p", str(i), weight) for i, weight in enumerate(weights))
    result = ordered(targets, draw)
    assert sorted(result, key=lambda t: t.model) == list(targets)
    assert [t for t in targets if t != result[0]] == list(result[1:])
    if sum(weights) > 0:
        assert result[0].weight
    else:
        assert result == targets


def test_weights_are_kept_in_the_long_run() -> None:
    """Weights of three to one give three draws out of four."""
    targets = (Target("a", weight=3.0), Target("b", weight=1.0))
    first = [ordered(targets, (i + 0.5) / 1000)[0].provider for i in range(1000)]
    assert first.count("a") == 750


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "general"),
        ({"task_type": "bulk_processing"}, "bulk"),
        ({"task_type": "summaries"}, "own"),
        ({"model": "gpt-4o-mini"}, "gpt"),
        ({"model": "gpt-4o-mini", "task_type": "bulk_processing"}, "gpt"),
        ({"model": "claude"}, None),
        ({"params": {"temperature": 1}}, "predicate"),
    ],
)
def test_routes(fields: dict[str, Any], expected: str | None) -> None:
    """The first that matches; a named model is only matched by routes with a model pattern."""
    routes = [
        Route((A,), model="gpt-*"),
        Route((A,), task_type="bulk_processing"),
        Route((A,), task_type="summaries"),
        Route((A,), when=lambda r: "temperature" in r.params),
        Route((A,), min_tokens=1000),
        Route((A,), max_tokens=999),
    ]
    names = ["gpt", "bulk", "own", "predicate", "long", "general"]
    example = request("hello", **fields)
    route = routing.choose(routes, example, routing.prompt_tokens(example))
    assert (None if route is None else names[routes.index(route)]) == expected


def test_routes_by_prompt_length() -> None:
    """By the estimated number of tokens."""
    routes = [Route((B,), min_tokens=1000), Route((A,))]
    long, short = request("word " * 2000), request("word")
    assert routing.choose(routes, long, routing.prompt_tokens(long)) == routes[0]
    assert routing.choose(routes, short, routing.prompt_tokens(short)) == routes[1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("openai", Target("openai")),
        ("openai/gpt-4o", Target("openai", "gpt-4o")),
        ("openrouter/deepseek/deepseek-chat@2", Target("openrouter", "deepseek/deepseek-chat", 2)),
        ("vertex/claude-3-5@20240620", Target("vertex", "claude-3-5@20240620")),
        ("vertex/claude-3-5@20240620@0.5", Target("vertex", "claude-3-5@20240620", 0.5)),
        ("cf/@cf/meta/llama", Target("cf", "@cf/meta/llama")),
    ],
)
def test_targets_are_read(text: str, expected: Target) -> None:
    """Provider, model and weight, separated by "/" and "@"."""
    assert Target.parse(text) == expected


@pytest.mark.parametrize("text", ["", "/m", "@1", "a@b/c"])
def test_wrong_targets_are_refused(text: str) -> None:
    """A text of any other form raises a ConfigError."""
    with pytest.raises(ConfigError):
        Target.parse(text)


def test_a_route_without_targets_is_refused() -> None:
    """It could not answer anything."""
    with pytest.raises(ConfigError, match="no targets"):
        Route(())
