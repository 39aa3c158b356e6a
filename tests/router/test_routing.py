"""Rules, weights, and the walk: pure, so driven by hand."""

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
from semcache.router.routing import Attempt, Pause, Report, Route, Stop, Target, ordered, walk

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


def walked(targets: Any, ends: list[str], retry: Retry = Retry(), deadline: Any = None) -> Any:
    """(the steps taken, how it stopped), each attempt ending as listed; the last goes on."""
    walking = walk(targets, retry, deadline)
    steps, now, report, left = [], 0.0, None, list(ends)
    while True:
        try:
            step = walking.send(report)  # type: ignore[arg-type]
        except StopIteration as stop:
            return steps, stop.value
        steps.append(step)
        if isinstance(step, Pause):
            now += step.seconds
            report = Report(now, 0.5)
        else:
            report = Report(now, 0.5, error(left.pop(0) if len(left) > 1 else left[0]))


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
def test_the_walk(ends: list[str], expected: list[str], reason: str) -> None:
    """Who is asked, and how often, for each way that attempts end."""
    steps, stop = walked((A, B), ends)
    assert attempts(steps) == expected
    assert stop.reason == reason


kinds = st.sampled_from(["unavailable", "limited", "limited long", "rejected", "no key", "open"])


@given(st.lists(kinds, min_size=1, max_size=30), st.integers(1, 5), st.floats(0.01, 100))
def test_the_walk_ends(ends: list[str], most: int, deadline: float) -> None:
    """No order of failures makes it go on for ever, retry a rejection, or pause past the end."""
    retry = Retry(attempts=most)
    steps, stop = walked((A, B), ends, retry, deadline)
    assert isinstance(stop, Stop)
    assert len(attempts(steps)) <= 2 * most
    assert sum(s.seconds for s in steps if isinstance(s, Pause)) < deadline
    for before, after in pairwise(steps):
        if isinstance(before, Pause):
            assert isinstance(after, Attempt)
            assert after.number > 1


def test_the_last_word_is_a_provider_s() -> None:
    """An open breaker says less than what a provider said before."""
    _, stop = walked((A, B), ["no key", "open"])
    assert isinstance(stop.error, RejectedError)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=6), st.floats(0, 1, exclude_max=True))
def test_weights(weights: list[float], draw: float) -> None:
    """One of those with a weight goes first, nobody is lost, the others keep their order."""
    targets = tuple(Target("p", str(i), weight) for i, weight in enumerate(weights))
    found = ordered(targets, draw)
    assert sorted(found, key=lambda t: t.model) == list(targets)
    assert [t for t in targets if t != found[0]] == list(found[1:])
    if sum(weights) > 0:
        assert found[0].weight
    else:
        assert found == targets


def test_weights_are_kept_in_the_long_run() -> None:
    """Three to one means three out of four."""
    targets = (Target("a", weight=3.0), Target("b", weight=1.0))
    first = [ordered(targets, (i + 0.5) / 1000)[0].provider for i in range(1000)]
    assert first.count("a") == 750


@pytest.mark.parametrize(
    ("asked", "expected"),
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
def test_rules(asked: dict[str, Any], expected: str | None) -> None:
    """The first that fits; a named model is rerouted by rules about models alone."""
    routes = [
        Route((A,), model="gpt-*"),
        Route((A,), task_type="bulk_processing"),
        Route((A,), task_type="summaries"),
        Route((A,), when=lambda r: "temperature" in r.params),
        Route((A,), min_tokens=1000),
        Route((A,), max_tokens=999),
    ]
    names = ["gpt", "bulk", "own", "predicate", "long", "general"]
    sent = request("hello", **asked)
    found = routing.choose(routes, sent, routing.prompt_tokens(sent))
    assert (None if found is None else names[routes.index(found)]) == expected


def test_long_prompts_go_their_own_way() -> None:
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
    """Provider, model, weight."""
    assert Target.parse(text) == expected


@pytest.mark.parametrize("text", ["", "/m", "@1", "a@b/c"])
def test_wrong_targets_are_refused(text: str) -> None:
    """With the text that is wrong."""
    with pytest.raises(ConfigError):
        Target.parse(text)


def test_a_route_without_targets_is_refused() -> None:
    """It would lead nowhere."""
    with pytest.raises(ConfigError, match="no targets"):
        Route(())
