"""The providers' own packages: a hit is the object that the package built, in every respect.

The packages build their objects from recorded bytes, so these are the real classes in the real
way, which does not validate: fields are missing, others are unknown, and types do not match.
"""

from __future__ import annotations

import asyncio
import functools
import json
import tempfile
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pydantic
import pytest
from anthropic import Anthropic, AsyncAnthropic
from anthropic.types import Message, RawMessageStreamEvent
from google import genai
from google.genai.types import GenerateContentResponse
from openai import AsyncOpenAI, OpenAI
from openai.types import Completion, CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent

from semcache import FaultEvent, RecordEvent, SemanticCache
from tests.clients import recorded as answers
from tests.clients.recorded import JSON_TEXT, RECORDED, Recorded
from tests.helpers import Heard, open_cache

MESSAGES: Any = [{"role": "user", "content": "hello"}]

# ------------------------------------------------------------------- clients and their calls


class Server:
    """Answers every request with the same bytes, and counts them."""

    def __init__(self, recorded: Recorded) -> None:
        self.asked = 0
        self._recorded = recorded

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.asked += 1
        kind = "text/event-stream" if self._recorded.streamed else "application/json"
        headers = {
            "content-type": kind,
            "x-request-id": f"req_{self.asked}",
            "request-id": f"req_{self.asked}",
        }
        return httpx2.Response(200, headers=headers, content=self._recorded.body)

    def client(self, *, is_async: bool = False) -> Any:
        """The package's client for the recorded API."""
        transport = httpx2.MockTransport(self)
        sync_http, async_http = (
            httpx2.Client(transport=transport),
            httpx2.AsyncClient(transport=transport),
        )
        match self._recorded.api:
            case "plain":
                return sync_http
            case "generate":
                options: Any = {"httpx_client": sync_http, "httpx_async_client": async_http}
                client = genai.Client(api_key="k", http_options=options)
                return client.aio if is_async else client
            case "messages" if is_async:
                return AsyncAnthropic(api_key="k", http_client=async_http)
            case "messages":
                return Anthropic(api_key="k", http_client=sync_http)
            case _ if is_async:
                return AsyncOpenAI(api_key="k", http_client=async_http)
            case _:
                return OpenAI(api_key="k", http_client=sync_http)


def _generate(client: Any, *, stream: bool) -> Any:
    models = client.models
    call = models.generate_content_stream if stream else models.generate_content
    return call(model="gemini-2.5-flash", contents="hello")


def _plain(client: Any, *, stream: bool) -> Any:
    response = client.post("http://localhost:11434/api/chat", json={})
    return map(json.loads, response.content.splitlines()) if stream else response.json()


CALLS: dict[str, Callable[..., Any]] = {
    "chat": lambda client, stream: client.chat.completions.create(
        model="m", messages=MESSAGES, stream=stream
    ),
    "responses": lambda client, stream: client.responses.create(
        model="m", input="hello", stream=stream
    ),
    "completions": lambda client, stream: client.completions.create(
        model="m", prompt="hello", stream=stream
    ),
    "embeddings": lambda client, stream: client.embeddings.create(model="m", input="hello"),
    "messages": lambda client, stream: client.messages.create(
        model="m", max_tokens=9, messages=MESSAGES, stream=stream
    ),
    "generate": _generate,
    "plain": _plain,
}
TYPES: dict[tuple[str, bool], Any] = {
    ("chat", False): ChatCompletion,
    ("chat", True): ChatCompletionChunk,
    ("responses", False): Response,
    ("responses", True): ResponseStreamEvent,
    ("completions", False): Completion,
    ("completions", True): Completion,
    ("embeddings", False): CreateEmbeddingResponse,
    ("messages", False): Message,
    ("messages", True): RawMessageStreamEvent,
    ("generate", False): GenerateContentResponse,
    ("generate", True): GenerateContentResponse,
    ("plain", False): dict[str, Any],
    ("plain", True): dict[str, Any],
}
"""The types with which a caller annotates a function, or a generator's chunks."""


def function_of(recorded: Recorded, client: Any, *, is_async: bool, annotated: bool) -> Any:
    """A function that a caller would write around the package's call."""
    call = functools.partial(CALLS[recorded.api], client, stream=recorded.streamed)

    def whole(prompt: str) -> Any:
        return call()

    def stream(prompt: str) -> Any:
        yield from call()

    async def awhole(prompt: str) -> Any:
        return await call()

    async def astream(prompt: str) -> Any:
        async for chunk in await call():
            yield chunk

    one, chunks = (awhole, astream) if is_async else (whole, stream)
    function: Any = chunks if recorded.streamed else one
    if annotated:
        kind = TYPES[recorded.api, recorded.streamed]
        iterator = AsyncIterator[kind] if is_async else Iterator[kind]  # type: ignore[valid-type]
        function.__annotations__["return"] = iterator if recorded.streamed else kind
    return function


# ------------------------------------------------------------------------------- two calls


REQUEST_IDS = frozenset({"_request_id", "_workspace_id"})


def portrait(value: Any, path: str = "") -> dict[str, Any]:
    """All that there is to a value, by its path: classes, attributes, extras, what was set."""
    facts: dict[str, Any] = {path: type(value)}
    parts: dict[str, Any] = {}
    if isinstance(value, pydantic.BaseModel):
        names = vars(value).keys() - REQUEST_IDS
        facts[f"{path} fields set"] = set(value.model_fields_set)
        facts[f"{path} extras"] = value.model_extra and list(value.model_extra)
        parts = {f".{name}": vars(value)[name] for name in names}
        parts |= {f"+{name}": item for name, item in (value.model_extra or {}).items()}
        parts |= {f"-{name}": item for name, item in (value.__pydantic_private__ or {}).items()}
    elif type(value) is dict:
        parts = {f"[{name!r}]": item for name, item in value.items()}
    elif type(value) in (list, tuple):
        parts = {f"[{index}]": item for index, item in enumerate(value)}
        facts[f"{path} length"] = len(value)
    else:
        facts[path] = (type(value), value)
    for name, item in parts.items():
        facts |= portrait(item, path + name)
    return facts


def texts(value: Any) -> list[Any]:
    """A value as the package's own methods show it, in this order of fields."""
    if not isinstance(value, pydantic.BaseModel):
        return [repr(value)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pydantic, about types that do not match
        to_json = getattr(value, "to_json", value.model_dump_json)
        unset = value.model_dump_json(exclude_unset=True)
        return [repr(value), to_json(), unset, list(value.model_dump())]


@dataclass
class Answer:
    """What one call gave, as it was when it was given."""

    portrait: dict[str, Any] = field(default_factory=dict)
    texts: list[Any] = field(default_factory=list)
    request_ids: list[Any] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)

    def add(self, value: Any) -> None:
        self.portrait |= portrait(value, f"({len(self.values)})")
        self.texts.append(texts(value))
        self.request_ids.append({name: getattr(value, name, None) for name in REQUEST_IDS})
        self.values.append(value)


@dataclass
class Twice:
    """Two identical calls: what they gave, and how often the model was asked."""

    first: Answer
    second: Answer
    asked: int
    why: str
    refusals: list[BaseException]

    def changed(self) -> list[str]:
        """What is not the same in the second answer."""
        one, two = self.first.portrait, self.second.portrait
        return [
            f"{path}: {one.get(path, 'absent')} -> {two.get(path, 'absent')}"
            for path in sorted(one.keys() | two.keys())
            if one.get(path, "absent") != two.get(path, "absent")
        ]


def _read(result: Any) -> Answer:
    answer = Answer()
    if isinstance(result, Iterator):
        for chunk in result:
            answer.add(chunk)
    else:
        answer.add(result)
    return answer


async def _aread(result: Any) -> Answer:
    answer = Answer()
    if isinstance(result, AsyncIterator):
        async for chunk in result:
            answer.add(chunk)
    else:
        answer.add(await result)
    return answer


def twice(
    server: Server, function: Any, *, is_async: bool = False, path: str = ":memory:"
) -> Twice:
    """Call a function twice through a cache that stores whatever can be stored.

    A cache in a directory is closed and opened again between the calls.
    """
    heard = Heard()

    def ask(cache: SemanticCache) -> Answer:
        cached = cache.cached(store_truncated=True, store_tool_calls=True)(function)
        return asyncio.run(_aread(cached("hello"))) if is_async else _read(cached("hello"))

    def opened() -> SemanticCache:
        return open_cache(path, semantic=False, hooks=[heard])

    with opened() as cache:
        first = ask(cache)
        if path == ":memory:":
            second = ask(cache)
    if path != ":memory:":
        with opened() as cache:
            second = ask(cache)
    refusals = [fault.error for fault in heard.of(FaultEvent)]
    reasons = [event.reason for event in heard.of(RecordEvent)]
    return Twice(first, second, server.asked, f"{refusals} {reasons}", refusals)


HOW = ["sync", "async", "annotated", "reopened"]


@functools.cache
def replayed(recorded: Recorded, how: str) -> Twice:
    is_async = how == "async"
    server = Server(recorded)
    client = server.client(is_async=is_async)
    function = function_of(recorded, client, is_async=is_async, annotated=how == "annotated")
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.filterwarnings("ignore", ".* is not a valid FinishReason")  # genai's own
        path = folder if how == "reopened" else ":memory:"
        return twice(server, function, is_async=is_async, path=path)


CASES = [
    pytest.param(recorded, how, id=f"{recorded}-{how}")
    for recorded in RECORDED
    for how in HOW
    if (recorded.api, how) != ("plain", "async")
]
COMPLETE = [case for case in CASES if case.values[0].whole]


# ------------------------------------------------------------------------- create() as it is


@pytest.mark.parametrize(("recorded", "how"), COMPLETE)
def test_a_repeat_is_not_asked_again(recorded: Recorded, how: str) -> None:
    """Whatever the package builds from a whole answer can be stored."""
    result = replayed(recorded, how)
    assert result.asked == 1, result.why


@pytest.mark.parametrize(("recorded", "how"), COMPLETE)
def test_a_hit_equals_the_original(recorded: Recorded, how: str) -> None:
    """Classes, attributes, extras, which fields were set, and the package's own renderings."""
    result = replayed(recorded, how)
    if result.asked != 1:
        pytest.skip("asked again")
    assert result.changed() == []
    assert result.second.texts == result.first.texts


@pytest.mark.parametrize(("recorded", "how"), COMPLETE)
def test_a_hit_has_the_request_id_of_the_original(recorded: Recorded, how: str) -> None:
    """It is the id under which the provider knows the answer."""
    result = replayed(recorded, how)
    if result.asked != 1:
        pytest.skip("asked again")
    assert result.second.request_ids == result.first.request_ids


@pytest.mark.parametrize("recorded", RECORDED, ids=str)
def test_only_a_whole_answer_is_kept_with_its_words(recorded: Recorded) -> None:
    """With default options: cut off, refused, asking for tools is passed on and not stored."""
    heard = Heard()
    client = Server(recorded).client()
    with (
        open_cache(":memory:", semantic=False, hooks=[heard]) as cache,
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", ".* is not a valid FinishReason")
        ask = cache.cached(function_of(recorded, client, is_async=False, annotated=False))
        _read(ask("hello"))
        found = ask.lookup("hello").completion
    faults = [event.error for event in heard.of(FaultEvent)]
    reasons = [event.reason for event in heard.of(RecordEvent)]
    assert (found is not None) is recorded.kept, (faults, reasons)
    if found is not None:
        assert found.text == recorded.text
    assert faults == []


# --------------------------------------------------- parse(), raw responses, streaming helpers


class Weather(pydantic.BaseModel):
    city: str
    degrees: float


def local_weather() -> type[pydantic.BaseModel]:
    """A class that no import finds."""

    class Weather(pydantic.BaseModel):
        city: str
        degrees: float

    return Weather


_TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}

PARSE: dict[str, tuple[Recorded, Callable[[Any, Any], Any], Callable[[Any], Any]]] = {
    "chat": (
        answers.OPENAI_JSON,
        lambda client, cls: client.chat.completions.parse(
            model="m", messages=MESSAGES, response_format=cls
        ),
        lambda value: value.choices[0].message.parsed,
    ),
    "responses": (
        answers.RESPONSE_JSON,
        lambda client, cls: client.responses.parse(model="m", input="hello", text_format=cls),
        lambda value: value.output_parsed,
    ),
    "messages": (
        answers.MESSAGE_JSON,
        lambda client, cls: client.messages.parse(
            model="m", max_tokens=9, messages=MESSAGES, output_format=cls
        ),
        lambda value: value.parsed_output,
    ),
    "generate": (
        answers.GENERATED_JSON,
        lambda client, cls: client.models.generate_content(
            model="gemini-2.5-flash",
            contents="hello",
            config={"response_mime_type": "application/json", "response_schema": cls},
        ),
        lambda value: value.parsed,
    ),
}


def check_a_hit_or_a_refusal(result: Twice) -> None:
    """Either the same object again, or asked again for a reason that is told."""
    if result.asked == 1:
        assert result.changed() == []
        assert result.second.texts == result.first.texts
        assert result.second.request_ids == result.first.request_ids
        return
    assert result.refusals, f"asked again without a word: {result.why}"
    classes = {cls for cls in result.first.portrait.values() if isinstance(cls, type)}
    names = {c.__name__.partition("[")[0] for c in classes if issubclass(c, pydantic.BaseModel)}
    for refusal in result.refusals:
        assert type(refusal) is TypeError, f"an accident, not a refusal: {refusal!r}"
        assert any(name in str(refusal) for name in names), f"of what class? {refusal}"


@pytest.mark.parametrize("how", ["sync", "async", "annotated"])
@pytest.mark.parametrize("cls", [Weather, local_weather()], ids=["of a module", "local"])
@pytest.mark.parametrize("api", PARSE)
def test_a_parsed_answer_is_the_same_or_refused(api: str, cls: Any, how: str) -> None:
    """With the caller's own object inside it, of the caller's own class."""
    recorded, call, parsed_of = PARSE[api]
    server = Server(recorded)
    client = server.client(is_async=how == "async")

    def parse(prompt: str) -> Any:
        return call(client, cls)

    async def aparse(prompt: str) -> Any:
        return await call(client, cls)

    if how == "annotated":
        probe = call(Server(recorded).client(), cls)
        parse.__annotations__["return"] = type(probe)
    result = twice(server, aparse if how == "async" else parse, is_async=how == "async")
    for answer in (result.first, result.second):
        parsed = parsed_of(answer.values[0])
        assert type(parsed) is cls, result.why
        assert parsed.model_dump() == json.loads(JSON_TEXT)
    check_a_hit_or_a_refusal(result)


def test_parsed_tool_calls_are_the_same_or_refused() -> None:
    """The arguments of a strict tool."""
    server = Server(answers.OPENAI_TOOLS)
    client = server.client()

    def parse(prompt: str) -> Any:
        return client.chat.completions.parse(model="m", messages=MESSAGES, tools=[_TOOL])

    result = twice(server, parse)
    for answer in (result.first, result.second):
        call = answer.values[0].choices[0].message.tool_calls[0]
        assert call.function.parsed_arguments == {"city": "Bern"}
    check_a_hit_or_a_refusal(result)


UNSTORABLE: dict[str, tuple[Recorded, Callable[[Any], Any]]] = {
    "chat.with_raw_response": (
        answers.OPENAI,
        lambda client: client.chat.completions.with_raw_response.create(
            model="m", messages=MESSAGES
        ),
    ),
    "responses.with_raw_response": (
        answers.RESPONSE,
        lambda client: client.responses.with_raw_response.create(model="m", input="hello"),
    ),
    "messages.with_raw_response": (
        answers.MESSAGE,
        lambda client: client.messages.with_raw_response.create(
            model="m", max_tokens=9, messages=MESSAGES
        ),
    ),
    "chat.with_streaming_response": (
        answers.OPENAI,
        lambda client: client.chat.completions.with_streaming_response.create(
            model="m", messages=MESSAGES
        ),
    ),
    "chat.stream": (
        answers.OPENAI_STREAM,
        lambda client: client.chat.completions.stream(model="m", messages=MESSAGES),
    ),
    "chat(stream=True)": (answers.OPENAI_STREAM, lambda client: CALLS["chat"](client, stream=True)),
    "messages(stream=True)": (
        answers.MESSAGE_STREAM,
        lambda client: CALLS["messages"](client, stream=True),
    ),
    "generate(stream=True)": (
        answers.GENERATED_STREAM,
        lambda client: CALLS["generate"](client, stream=True),
    ),
}


@pytest.mark.parametrize("call", UNSTORABLE)
def test_a_response_or_a_stream_as_a_value_is_refused_by_name(call: str) -> None:
    """A function that returns them is called each time, and one is told why."""
    recorded, made = UNSTORABLE[call]
    server = Server(recorded)
    client = server.client()
    heard = Heard()
    with open_cache(":memory:", semantic=False, hooks=[heard]) as cache:

        @cache.cached()
        def ask(prompt: str) -> Any:
            return made(client)

        values = [ask("hello") for _ in range(2)]
        assert values[0] is not values[1]
        assert ask.lookup("hello").completion is None
    faults = heard.of(FaultEvent)
    assert [fault.where for fault in faults] == ["codec", "codec"]
    assert all(type(values[0]).__name__ in str(fault.error) for fault in faults), faults[0].error
    if hasattr(values[0], "parse"):
        assert values[0].parse() is not None
    elif isinstance(values[0], Iterator):
        assert list(values[0]), "it can still be read"


def test_what_a_raw_response_parses_to_is_the_same() -> None:
    """A caller who needs the headers, too, returns the parsed object."""
    server = Server(answers.OPENAI)
    client = server.client()

    def ask(prompt: str) -> Any:
        raw = client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES)
        assert raw.headers["x-request-id"] == "req_1"
        return raw.parse()

    result = twice(server, ask)
    assert result.asked == 1, result.why
    assert result.changed() == []
    assert result.second.request_ids == result.first.request_ids


STREAMS: dict[str, tuple[Recorded, Callable[[Any], Any]]] = {
    "chat": (
        answers.OPENAI_STREAM,
        lambda client: client.chat.completions.stream(model="m", messages=MESSAGES),
    ),
    "chat tools": (
        answers.OPENAI_TOOL_STREAM,
        lambda client: client.chat.completions.stream(model="m", messages=MESSAGES, tools=[_TOOL]),
    ),
    "chat parsed": (
        answers.OPENAI_JSON_STREAM,
        lambda client: client.chat.completions.stream(
            model="m", messages=MESSAGES, response_format=Weather
        ),
    ),
    "responses": (
        answers.RESPONSE_STREAM,
        lambda client: client.responses.stream(model="m", input="hello"),
    ),
    "responses parsed": (
        answers.RESPONSE_JSON_STREAM,
        lambda client: client.responses.stream(model="m", input="hello", text_format=Weather),
    ),
    "messages": (
        answers.MESSAGE_THINKING_STREAM,
        lambda client: client.messages.stream(model="m", max_tokens=9, messages=MESSAGES),
    ),
    "messages tools": (
        answers.MESSAGE_TOOL_STREAM,
        lambda client: client.messages.stream(model="m", max_tokens=9, messages=MESSAGES),
    ),
    "messages parsed": (
        answers.MESSAGE_JSON_STREAM,
        lambda client: client.messages.stream(
            model="m", max_tokens=9, messages=MESSAGES, output_format=Weather
        ),
    ),
}


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("helper", STREAMS)
def test_the_events_of_a_streaming_helper_are_the_same_or_refused(
    helper: str, is_async: bool
) -> None:
    """A generator that passes on what `client....stream(...)` yields."""
    recorded, opened = STREAMS[helper]
    server = Server(recorded)
    client = server.client(is_async=is_async)

    def events(prompt: str) -> Any:
        with opened(client) as stream:
            yield from stream

    async def aevents(prompt: str) -> Any:
        async with opened(client) as stream:
            async for event in stream:
                yield event

    check_a_hit_or_a_refusal(twice(server, aevents if is_async else events, is_async=is_async))


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_the_text_of_a_streaming_helper_is_replayed(is_async: bool) -> None:
    """Anthropic's `text_stream` yields plain text."""
    server = Server(answers.MESSAGE_STREAM)
    client = server.client(is_async=is_async)

    def words(prompt: str) -> Any:
        with client.messages.stream(model="m", max_tokens=9, messages=MESSAGES) as stream:
            yield from stream.text_stream

    async def awords(prompt: str) -> Any:
        async with client.messages.stream(model="m", max_tokens=9, messages=MESSAGES) as stream:
            async for text in stream.text_stream:
                yield text

    result = twice(server, awords if is_async else words, is_async=is_async)
    assert result.asked == 1, result.why
    assert result.second.values == result.first.values
    assert "".join(result.second.values) == answers.TEXT


FINAL: dict[str, tuple[Recorded, Callable[[Any], Any], str]] = {
    "chat": (*STREAMS["chat parsed"], "get_final_completion"),
    "responses": (*STREAMS["responses parsed"], "get_final_response"),
    "messages": (*STREAMS["messages parsed"], "get_final_message"),
}


@pytest.mark.parametrize("api", FINAL)
def test_the_final_answer_of_a_streaming_helper_is_the_same_or_refused(api: str) -> None:
    """A function that streams to the screen and returns the whole."""
    recorded, opened, final = FINAL[api]
    server = Server(recorded)
    client = server.client()

    def ask(prompt: str) -> Any:
        with opened(client) as stream:
            return getattr(stream, final)()

    check_a_hit_or_a_refusal(twice(server, ask))
