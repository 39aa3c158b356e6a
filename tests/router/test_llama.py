"""Against a real model server, llama.cpp with SmolLM2: the wire format, not the quality."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from semcache.providers import Anthropic, OpenAICompatible, SDKProvider
from semcache.router import Router
from semcache.types import Completion
from tests import llama
from tests.helpers import open_cache
from tests.router.methods import METHODS, OPEN_ROUTERS, router

pytestmark = pytest.mark.skipif(llama.missing() is not None, reason=str(llama.missing()))

PARAMS = {"max_tokens": 24, "temperature": 0.0}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with llama.running() as url:
        yield url


def sdk(kind: str, address: str) -> SDKProvider:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import anthropic
        import openai
    if "OpenAI" in kind:
        client: Any = getattr(openai, kind)(base_url=f"{address}/v1", api_key="k")
    else:
        client = getattr(anthropic, kind)(base_url=address, api_key="k")
    return SDKProvider(client, model="smollm2")


def provider(kind: str, address: str) -> Any:
    if kind == "openai":
        return OpenAICompatible(base_url=f"{address}/v1", model="smollm2")
    if kind == "anthropic":
        return Anthropic(base_url=address, model="smollm2", version="2023-06-01")
    return sdk(kind, address)


KINDS = ["openai", "anthropic", "OpenAI", "AsyncOpenAI", "Anthropic", "AsyncAnthropic"]


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore")
def test_a_real_answer(address: str, kind: str, method: Any) -> None:
    """Whole and streamed, blocking and async: text, a finish reason and token counts."""
    asked = router(provider(kind, address), deadline=60.0, timeouts=_long_timeouts())
    answer: Completion = method(asked, "Say hello to Ada, please.", params=PARAMS)
    assert answer.text.strip()
    assert answer.finish_reason in ("stop", "length")
    assert answer.usage.prompt_tokens is not None
    assert answer.usage.prompt_tokens > 5
    assert answer.usage.completion_tokens is not None
    assert 0 < answer.usage.completion_tokens <= 24
    assert answer.model == "smollm2"
    assert [attempt.result for attempt in answer.attempts] == ["answered"]
    assert answer.usage.cost_usd is None, "the model has no price"
    OPEN_ROUTERS.clear()
    del asked
    gc.collect()  # the SDKs' async clients close their connections when they are collected


def _long_timeouts() -> Any:
    from semcache.router import Timeouts

    return Timeouts(read=60.0)


def test_a_stream_arrives_in_pieces(address: str) -> None:
    """The stream is not held back until it is complete."""
    asked = router(provider("openai", address), timeouts=_long_timeouts())
    pieces = [c.text for c in asked.stream("Count to ten.", params=PARAMS) if c.text]
    assert len(pieces) > 3


def test_the_same_prompt_again_comes_from_the_cache(address: str, tmp_path: Path) -> None:
    """Only the first call reaches the model; all repeats are exact hits."""
    with (
        Router([provider("openai", address)], deadline=60.0) as asked,
        open_cache(tmp_path, router=asked, store_truncated=True) as cache,
    ):
        first = cache.answer("What is the capital of France?", params=PARAMS)
        again = cache.answer("What is the capital of France?", params=PARAMS)
        assert first.text == again.text
        assert len(first.attempts) == 1
        assert again.attempts == ()
        streamed = "".join(cache.stream("What is the capital of France?", params=PARAMS))
        assert streamed == first.text

        async def main() -> tuple[Completion, str]:
            answer = await cache.aanswer("What is the capital of France?", params=PARAMS)
            stream = cache.astream("What is the capital of France?", params=PARAMS)
            text = "".join([piece async for piece in stream])
            await asked.aclose()
            return answer, text

        answer, text = asyncio.run(main())
        assert answer.text == text == first.text
        stats = cache.stats()
        assert (stats.exact_hits, stats.records) == (4, 1)
        assert stats.tokens_saved > 0


def test_a_prompt_that_is_too_long_is_rejected(address: str) -> None:
    """The error has the server's message, without a retry; another provider could be tried."""
    from semcache.errors import RejectedError, RouteExhaustedError

    asked = router(provider("openai", address), timeouts=_long_timeouts())
    with pytest.raises(RouteExhaustedError, match="context") as caught:
        asked.complete("word " * 6000)
    assert isinstance(caught.value.__cause__, RejectedError)
    assert [(a.result, a.status) for a in caught.value.attempts] == [("rejected", 400)]
