"""The cache in front of the router: answers, streams, decorators, costs."""

from __future__ import annotations

import asyncio
import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from semcache import SemanticCache
from semcache.errors import ConfigError, RejectedError, RouteExhaustedError
from semcache.providers import SDKProvider
from semcache.types import Chunk, Completion
from tests.faults import FaultServer, chunk, completion, events, ok, raw, status
from tests.helpers import open_cache
from tests.router.methods import METHODS, provider, router


def open_with(path: Path, server: FaultServer, *acts: Any, **options: Any) -> SemanticCache:
    url = server.case("model", acts or [ok])
    return open_cache(path, router=router(provider(url, price_list="openai")), **options)


def test_misses_are_answered_and_stored(server: FaultServer, tmp_path: Path) -> None:
    """One call for four answers; the cost of the other three is counted as saved."""
    with open_with(tmp_path, server) as cache:
        first = cache.answer("How are you?", task_type="general")
        assert first.served_from is None
        assert first.usage.cost_usd == pytest.approx(4.5e-6)
        again = cache.answer("How are you?", task_type="general")
        assert (again.text, again.served_from, again.attempts) == ("Fine.", "exact", ())
        near = cache.answer("how are you? you?", task_type="general")
        assert near.served_from == "semantic"
        assert "".join(cache.stream("How are you?", task_type="general")) == "Fine."
        assert len(server.seen["model"]) == 1
        assert cache.stats().usd_saved == pytest.approx(3 * 4.5e-6)
        assert cache.stats().tokens_saved == 45


def test_a_task_type_is_part_of_the_scope(server: FaultServer, tmp_path: Path) -> None:
    """Another task type may lead to another model, with another answer."""
    with open_with(tmp_path, server) as cache:
        cache.answer("How are you?", task_type="bulk_processing")
        assert cache.answer("How are you?", task_type="complex_reasoning").served_from is None
        assert cache.answer("How are you?").served_from is None
        assert len(cache) == 3


@pytest.mark.parametrize("reason", ["length", "content_filter", "tool_calls"])
@pytest.mark.parametrize("streamed", [False, True])
def test_only_complete_answers_are_stored(
    server: FaultServer, tmp_path: Path, reason: str, streamed: bool
) -> None:
    """An answer that was cut off, streamed or not, is returned but not stored."""
    whole = completion()
    whole["choices"][0]["finish_reason"] = reason
    act = events(chunk("Fi"), chunk("n", reason)) if streamed else raw(json.dumps(whole).encode())
    with open_with(tmp_path, server, act) as cache:
        for _ in range(2):
            if streamed:
                assert "".join(cache.stream("How are you?")) == "Fin"
            else:
                assert cache.answer("How are you?").finish_reason == reason
        assert len(server.seen["model"]) == 2
        assert len(cache) == 0


def test_a_broken_stream_is_not_stored(server: FaultServer, tmp_path: Path) -> None:
    """The reader gets the first part and the error; the next caller asks again."""
    with open_with(tmp_path, server, events(chunk("Fi"), reset=True), ok) as cache:
        pieces = []
        with pytest.raises(Exception, match=r"ReadError|broke off"):
            pieces.extend(cache.stream("How are you?"))
        assert "".join(cache.stream("How are you?")) == "Fine."
        assert len(cache) == 1


def test_errors_pass_through(server: FaultServer, tmp_path: Path) -> None:
    """An error of the provider reaches the caller, and nothing is stored."""
    with open_with(tmp_path, server, status(400, "bad")) as cache:
        with pytest.raises(RejectedError, match="bad"):
            cache.answer("How are you?")
        assert len(cache) == 0


def test_without_a_router(tmp_path: Path) -> None:
    """The error says what is missing."""
    with open_cache(tmp_path) as cache, pytest.raises(ConfigError, match="router="):
        cache.answer("How are you?")


def test_the_router_s_own_methods_are_decorated(server: FaultServer, tmp_path: Path) -> None:
    """All four methods of the router can be decorated directly."""
    with open_with(tmp_path, server) as cache:
        assert cache.router is not None
        ask = cache.cached(name="m")(cache.router.complete)
        aask = cache.cached(name="m")(cache.router.acomplete)
        stream = cache.cached(name="s")(cache.router.stream)
        astream = cache.cached(name="s")(cache.router.astream)

        async def main() -> tuple[Completion, list[Chunk]]:
            answer = await aask("How are you?")
            chunks = [c async for c in astream("How are you?")]
            assert cache.router is not None
            await cache.router.aclose()
            return answer, chunks

        first = ask("How are you?")
        assert isinstance(first, Completion)
        assert len(first.attempts) == 1
        chunks = list(stream("How are you?"))
        assert [c.text for c in chunks] == ["Fi", "ne.", ""]
        again, replayed = asyncio.run(main())
        assert (again.text, again.served_from, again.attempts) == ("Fine.", "exact", ())
        assert [c.text for c in replayed] == ["Fi", "ne.", ""]
        assert replayed[-1].completion is not None
        assert replayed[-1].completion.served_from == "exact"
        assert replayed[-1].completion.usage.cost_usd == pytest.approx(4.5e-6)
        assert len(server.seen["model"]) == 2


def test_breaker_states_are_saved_for_other_processes(server: FaultServer, tmp_path: Path) -> None:
    """The command line can show them, although it is another process."""
    from semcache.backends.local.opening import open_store

    with open_with(tmp_path, server, status(500)) as cache:
        for number in range(2):
            with pytest.raises(RouteExhaustedError):
                cache.answer(f"question {number}")
    store = open_store(tmp_path)
    try:
        assert json.loads(store.metas("breaker:")["openai"])["state"] == "open"
    finally:
        store.close()


# ------------------------------------------------------------------------- SDK clients


def client(kind: str, url: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if "OpenAI" in kind:
            openai = pytest.importorskip("openai", reason="needs the openai package")
            return getattr(openai, kind)(base_url=url, api_key="sk-secret-secret")
        anthropic = pytest.importorskip("anthropic", reason="needs the anthropic package")
        return getattr(anthropic, kind)(base_url=url.removesuffix("/v1"), api_key="sk-secret")


@pytest.mark.parametrize("method", ["complete", "stream"])
@pytest.mark.parametrize("kind", ["OpenAI", "Anthropic"])
@pytest.mark.filterwarnings("ignore")
def test_an_sdk_s_failures_are_ours(server: FaultServer, kind: str, method: str) -> None:
    """Its own retries are off; its errors lead to retries and a fallback, and show no keys."""
    url = server.case("sdk", [status(429, "slow down", {"retry-after-ms": "10"}), status(500)])
    with client(kind, url) as inner:
        asked = router(SDKProvider(inner, model="m"), provider(server.case("up", [ok]), "backup"))
        answer = METHODS[method](asked)
        assert [(a.provider, a.result, a.status) for a in answer.attempts[:3]] == [
            (kind.lower(), "rate_limited", 429),
            (kind.lower(), "unavailable", 500),
            (kind.lower(), "unavailable", 500),
        ]
        assert answer.provider == "backup"
        assert len(server.seen["sdk"]) == 3
        assert "secret" not in repr(asked.providers)


@pytest.mark.filterwarnings("ignore")
def test_parameters_that_an_sdk_does_not_know(server: FaultServer) -> None:
    """They go into the body next to the others."""
    with client("OpenAI", server.case("sdk", [ok])) as inner:
        asked = router(SDKProvider(inner, model="m"))
        asked.complete("hello", params={"temperature": 0.5, "top_k": 3, "min_p": 0.1})
        body = server.seen["sdk"][0].json
        assert (body["temperature"], body["top_k"], body["min_p"]) == (0.5, 3, 0.1)


def test_other_clients_are_refused() -> None:
    """The error names the alternative."""
    with pytest.raises(ConfigError, match="CallableProvider"):
        SDKProvider(object())
