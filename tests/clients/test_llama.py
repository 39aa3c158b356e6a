"""Against a real server, llama.cpp with SmolLM2: the SDKs' functions decorated in place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import anthropic
import openai
import pytest

from semcache import FaultEvent, SemanticCache
from tests import llama
from tests.helpers import Heard, open_cache

pytestmark = [
    pytest.mark.skipif(llama.missing() is not None, reason=str(llama.missing())),
    pytest.mark.filterwarnings("ignore"),
]

MESSAGES: Any = [{"role": "user", "content": "Say hello to Ada."}]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with llama.running() as url:
        yield url


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def cache(heard: Heard) -> Iterator[SemanticCache]:
    options = {"store_truncated": True}  # the small model rarely stops by itself
    with open_cache(":memory:", hooks=[heard], semantic=False, **options) as opened:
        yield opened


def text_of(value: Any) -> str:
    """The text of a whole answer, a chunk or an event of any of the APIs."""
    if getattr(value, "choices", None):
        part = value.choices[0]
        if part.index != 0:
            return ""
        inner = getattr(part, "message", None) or getattr(part, "delta", None)
        return str((part.text if inner is None else inner.content) or "")
    if getattr(value, "type", "") == "content_block_delta":
        return str(getattr(value.delta, "text", "") or "")
    if getattr(value, "type", "") == "response.output_text.delta":
        return str(value.delta)
    if isinstance(getattr(value, "content", None), list):
        return "".join(getattr(block, "text", "") or "" for block in value.content)
    return str(getattr(value, "output_text", "") or "")


OPENAI, ANTHROPIC = "openai", "anthropic"
APIS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "chat": (OPENAI, "chat.completions", {"messages": MESSAGES, "max_tokens": 12}),
    "two choices": (OPENAI, "chat.completions", {"messages": MESSAGES, "max_tokens": 6, "n": 2}),
    "logprobs": (
        OPENAI,
        "chat.completions",
        {"messages": MESSAGES, "max_tokens": 6, "logprobs": True, "top_logprobs": 2},
    ),
    "completions": (OPENAI, "completions", {"prompt": "Hello, my name is", "max_tokens": 12}),
    "responses": (OPENAI, "responses", {"input": "Say hello.", "max_output_tokens": 12}),
    "messages": (ANTHROPIC, "messages", {"messages": MESSAGES, "max_tokens": 12}),
}


def resource(package: str, path: str, address: str, *, is_async: bool = False) -> Any:
    """The resource of a client whose `create` calls the API."""
    if package == OPENAI:
        kind: Any = openai.AsyncOpenAI if is_async else openai.OpenAI
        found = kind(base_url=f"{address}/v1", api_key="k", max_retries=0)
    else:
        kind = anthropic.AsyncAnthropic if is_async else anthropic.Anthropic
        found = kind(base_url=address, api_key="k", max_retries=0)
    for name in path.split("."):
        found = getattr(found, name)
    return found


@pytest.fixture
def create(
    request: pytest.FixtureRequest, address: str, cache: SemanticCache
) -> Callable[..., Any]:
    """The API's `create`, decorated in place, with the arguments of a call."""
    package, path, call = APIS[request.param]
    found = resource(package, path, address)
    found.create = cache.cached(found.create)

    def created(**more: Any) -> Any:
        return found.create(model="smollm2", **call, **more)

    created.info = found.create.cache_info  # type: ignore[attr-defined]
    return created


every_api = pytest.mark.parametrize("create", APIS, indirect=True)


@every_api
def test_a_whole_answer_is_served_again_as_it_was(create: Any, heard: Heard) -> None:
    one, two = create(), create()
    assert text_of(one)
    assert type(two) is type(one)
    assert two.to_json() == one.to_json()
    assert two.model_fields_set == one.model_fields_set
    assert create.info()[:3] == (1, 0, 1)
    assert heard.of(FaultEvent) == []


@every_api
def test_a_stream_is_served_again_as_it_was(create: Any, heard: Heard) -> None:
    one, two = list(create(stream=True)), list(create(stream=True))
    assert [chunk.to_json() for chunk in two] == [chunk.to_json() for chunk in one]
    assert list(map(type, two)) == list(map(type, one))
    assert "".join(map(text_of, one))
    assert create.info()[:3] == (1, 0, 1)
    assert heard.of(FaultEvent) == []


@every_api
def test_a_stored_stream_answers_a_plain_call(create: Any, request: Any) -> None:
    """If it has all that the answer to a plain call has: chat has its usage only if asked."""
    openais = request.node.callspec.params["create"] not in ("responses", "messages")
    asked = {"stream_options": {"include_usage": True}} if openais else {}
    streamed = "".join(map(text_of, create(stream=True, **asked)))
    whole = create()
    assert create.info()[:3] == (1, 0, 1)
    assert text_of(whole) == streamed
    assert whole.usage is not None


def test_a_stream_has_the_usage_if_the_call_asks_for_it(address: str, cache: SemanticCache) -> None:
    """And else no chunk without choices, whatever is stored."""
    found = resource(OPENAI, "chat.completions", address)
    found.create = cache.cached(found.create)
    call: Any = {"model": "smollm2", "messages": MESSAGES, "max_tokens": 6, "stream": True}
    options = {"stream_options": {"include_usage": True}}
    for more, wanted in (({}, False), (options, True), ({}, False), (options, True)):
        chunks = list(found.create(**call, **more))
        assert all(chunk.choices for chunk in chunks[:-1])
        assert (chunks[-1].choices == [] and chunks[-1].usage is not None) == wanted


def test_the_streaming_helper_reads_a_stored_stream(address: str, cache: SemanticCache) -> None:
    found = resource(OPENAI, "chat.completions", address)
    found.create = cache.cached(found.create)
    texts = []
    for _ in range(2):
        pieces: list[str] = []
        with (
            found.stream(model="smollm2", messages=MESSAGES, max_tokens=6) as stream,
            suppress(openai.LengthFinishReasonError),  # the helper's own, of an answer cut off
        ):
            pieces += (event.delta for event in stream if event.type == "content.delta")
        texts.append(pieces)
    assert texts[0] == texts[1] != []
    assert found.create.cache_info()[:3] == (1, 0, 1)


@every_api
def test_a_stored_answer_is_streamed(create: Any) -> None:
    whole = create()
    with create(stream=True) as chunks:
        assert "".join(map(text_of, chunks)) == text_of(whole)
    assert create.info()[:3] == (1, 0, 1)


@pytest.mark.parametrize("api", ["chat", "responses", "messages"])
def test_async_clients(api: str, address: str, cache: SemanticCache) -> None:
    """Whole and streamed, in place."""
    package, path, call = APIS[api]

    async def main() -> None:
        found = resource(package, path, address, is_async=True)
        found.create = cache.cached(found.create)
        arguments = {"model": "smollm2", **call}
        one, two = await found.create(**arguments), await found.create(**arguments)
        assert two.to_json() == one.to_json()
        chunks = [chunk async for chunk in await found.create(**arguments, stream=True)]
        assert "".join(map(text_of, chunks)) == text_of(one)
        assert found.create.cache_info()[:3] == (2, 0, 1)
        await found._client.close()  # else its sockets warn in some later test

    asyncio.run(main())


def test_an_answer_cut_off_by_its_limit_is_not_stored(address: str, heard: Heard) -> None:
    found = resource(OPENAI, "chat.completions", address)
    with open_cache(":memory:", hooks=[heard], semantic=False) as cache:
        found.create = cache.cached(found.create)
        for _ in range(2):
            found.create(model="smollm2", messages=MESSAGES, max_tokens=2)
            list(found.create(model="smollm2", messages=MESSAGES, max_tokens=2, stream=True))
        assert found.create.cache_info().not_stored == {"truncated": 4}
        assert len(cache) == 0
