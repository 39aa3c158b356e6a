"""Requests are validated against the official SDKs' types; recorded answers are read."""

from __future__ import annotations

import json
import warnings
from functools import cache
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, TypeAdapter

from semcache.errors import RejectedError, UnavailableError
from semcache.keys.parse import request
from semcache.providers import Anthropic, Gemini, OpenAICompatible
from semcache.providers.http_messages import HTTPReply, ServerEvent
from semcache.types import Request, ToolCallPart
from tests.providers import recorded

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    anthropic_types = pytest.importorskip("anthropic.types", reason="needs the anthropic package")
    openai_chat = pytest.importorskip("openai.types.chat", reason="needs the openai package")
    genai = pytest.importorskip("google.genai.types", reason="needs the google-genai package")

PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
OPENAI_TOOL = {
    "type": "function",
    "function": {"name": "weather", "description": "The weather.", "parameters": SCHEMA},
}
ANTHROPIC_TOOL = {"name": "weather", "description": "The weather.", "input_schema": SCHEMA}
CONVERSATION = [
    {"role": "system", "content": "You are brief."},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "  What is this?\n"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
        ],
    },
    {
        "role": "assistant",
        "content": "Let me see.",
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "weather", "arguments": '{"city": "Bern"}'},
            },
            {
                "id": "call_2",
                "type": "function",
                "function": {"name": "weather", "arguments": '{"city": "Basel"}'},
            },
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "sun"},
    {"role": "tool", "tool_call_id": "call_2", "content": "rain"},
    {"role": "user", "content": "And tomorrow?"},
]
JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}}
REQUESTS: dict[str, Request] = {
    "a prompt": request("Hello!"),
    "parameters": request(
        "Hello!",
        params={
            "temperature": 0.5,
            "top_p": 0.9,
            "max_tokens": 100,
            "stop": "END",
            "seed": 7,
            "user": "u1",
            "presence_penalty": 0.1,
        },
    ),
    "a conversation": request(messages=CONVERSATION, tools=[OPENAI_TOOL]),
    "Anthropic's tools": request(
        "Weather?", tools=[ANTHROPIC_TOOL], params={"tool_choice": {"type": "any"}}
    ),
    "a chosen tool": request(
        "Weather?",
        tools=[OPENAI_TOOL],
        params={
            "tool_choice": {"type": "function", "function": {"name": "weather"}},
            "parallel_tool_calls": False,
        },
    ),
    "a JSON schema": request("Where?", response_format=JSON_SCHEMA),
    "JSON": request("Where? As JSON.", response_format={"type": "json_object"}),
    "a separate system prompt": request("Hello!", system="Be kind."),
    "an image by URL": request(
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
                    {"type": "text", "text": "What is this?"},
                ],
            }
        ]
    ),
    "a document": request(
        messages=[
            {
                "role": "user",
                "content": [
                    {
                        "type": "document",
                        "source": {
                            "type": "base64",
                            "media_type": "application/pdf",
                            "data": "JVBERi0xLjQK",
                        },
                        "title": "Terms",
                    },
                    {"type": "text", "text": "Sum it up."},
                ],
            }
        ]
    ),
}
CALLS = (ToolCallPart("call_abc", "weather", {"city": "Bern"}),)


def forced(value: Any) -> Any:
    """Read every lazily validated list to its end."""
    if isinstance(value, dict):
        return {k: forced(v) for k, v in value.items()}
    if isinstance(value, str | bytes | int | float | bool | type(None)):
        return value
    return [forced(item) for item in value]


@cache
def adapter(kind: Any) -> TypeAdapter[Any]:
    """Cached, because lazily validated values need their adapter to stay alive."""
    return TypeAdapter(kind)


class GeminiBody(BaseModel):
    """The REST body, made of the SDK's own types."""

    model_config = ConfigDict(extra="forbid")
    contents: list[genai.Content]  # type: ignore[name-defined]
    systemInstruction: genai.Content | None = None  # type: ignore[name-defined]  # noqa: N815
    tools: list[genai.Tool] | None = None  # type: ignore[name-defined]
    toolConfig: genai.ToolConfig | None = None  # type: ignore[name-defined]  # noqa: N815
    generationConfig: genai.GenerationConfig | None = None  # type: ignore[name-defined]  # noqa: N815


def sent(codec: Any, asked: Request, *, stream: bool = False) -> dict[str, Any]:
    built = codec.build(asked, model="the-model", stream=stream)
    body: dict[str, Any] = json.loads(built.content)
    return body


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("asked", REQUESTS.values(), ids=REQUESTS)
def test_openai_accepts_what_we_send(asked: Request, stream: bool) -> None:
    """Every field is known to the SDK's type, with a valid value."""
    from openai.types.chat import completion_create_params as params

    kind = (
        params.CompletionCreateParamsStreaming
        if stream
        else params.CompletionCreateParamsNonStreaming
    )
    body = sent(OpenAICompatible(api_key="k"), asked, stream=stream)
    forced(adapter(kind).validate_python(body, extra="forbid"))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("asked", REQUESTS.values(), ids=REQUESTS)
def test_anthropic_accepts_what_we_send(asked: Request, stream: bool) -> None:
    """Every field is known to the SDK's type, with a valid value."""
    from anthropic.types import message_create_params as params

    kind = params.MessageCreateParamsStreaming if stream else params.MessageCreateParamsNonStreaming
    body = sent(Anthropic(api_key="k"), asked, stream=stream)
    forced(adapter(kind).validate_python(body, extra="forbid"))


@pytest.mark.parametrize("asked", REQUESTS.values(), ids=REQUESTS)
def test_gemini_accepts_what_we_send(asked: Request) -> None:
    """Every field is known to the SDK's types, with a valid value."""
    GeminiBody.model_validate(sent(Gemini(api_key="k"), asked))


def test_text_is_sent_unchanged() -> None:
    """Spaces and line breaks are kept; only cache keys use normalised text."""
    asked = REQUESTS["a conversation"]
    for body in (
        sent(codec(api_key="k"), asked) for codec in (OpenAICompatible, Anthropic, Gemini)
    ):
        assert json.dumps("  What is this?\n") in json.dumps(body)


def test_tool_results_stay_together() -> None:
    """Anthropic requires the results of one turn's calls in one message."""
    messages = sent(Anthropic(api_key="k"), REQUESTS["a conversation"])["messages"]
    assert [m["role"] for m in messages] == ["user", "assistant", "user"]
    kinds = [block["type"] for block in messages[2]["content"]]
    assert kinds == ["tool_result", "tool_result", "text"]


def test_gemini_knows_the_names_of_results() -> None:
    """A tool result needs the function's name, which is looked up by the call's id."""
    contents = sent(Gemini(api_key="k"), REQUESTS["a conversation"])["contents"]
    results = [p["functionResponse"] for p in contents[2]["parts"] if "functionResponse" in p]
    assert results == [
        {"name": "weather", "response": {"result": "sun"}},
        {"name": "weather", "response": {"result": "rain"}},
    ]


def test_anthropic_versions() -> None:
    """Only the new version leaves sampling parameters out and sends a bearer token."""
    asked = REQUESTS["parameters"]
    new, old = Anthropic(api_key="k"), Anthropic(api_key="k", version="2023-06-01")
    assert "temperature" not in sent(new, asked)
    assert sent(old, asked)["temperature"] == 0.5
    assert list(new.build(asked, model="m", stream=False).secrets) == ["authorization"]
    assert list(old.build(asked, model="m", stream=False).secrets) == ["x-api-key"]


def test_openai_s_own_limit_is_renamed() -> None:
    """OpenAI gets max_completion_tokens; other servers get the name that the caller used."""
    asked = REQUESTS["parameters"]
    assert sent(OpenAICompatible(api_key="k"), asked)["max_completion_tokens"] == 100
    assert sent(OpenAICompatible(base_url="http://localhost:1/v1"), asked)["max_tokens"] == 100


def test_unsupported_parts_are_rejected() -> None:
    """Anthropic does not support audio; the others do."""
    audio = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    asked = request(messages=[{"role": "user", "content": [audio]}])
    with pytest.raises(RejectedError, match="does not support audio"):
        Anthropic(api_key="k").build(asked, model="m", stream=False)
    assert "input_audio" in json.dumps(sent(OpenAICompatible(api_key="k"), asked))
    assert "audio/wav" in json.dumps(sent(Gemini(api_key="k"), asked))


# ---------------------------------------------------------------------------- reading

CODECS: dict[str, tuple[Any, Any, Any, Any, Any]] = {
    "openai": (
        OpenAICompatible(api_key="k"),
        recorded.OPENAI,
        recorded.OPENAI_STREAM,
        recorded.OPENAI_TOOLS,
        recorded.OPENAI_TOOL_STREAM,
    ),
    "anthropic": (
        Anthropic(api_key="k"),
        recorded.ANTHROPIC,
        recorded.ANTHROPIC_STREAM,
        recorded.ANTHROPIC_TOOLS,
        recorded.ANTHROPIC_TOOL_STREAM,
    ),
    "gemini": (
        Gemini(api_key="k"),
        recorded.GEMINI,
        recorded.GEMINI_STREAM,
        recorded.GEMINI_TOOLS,
        recorded.GEMINI_TOOL_STREAM,
    ),
}
codecs = pytest.mark.parametrize(
    ("codec", "answer", "stream", "tools", "tool_stream"), CODECS.values(), ids=CODECS
)


def reply(value: Any) -> HTTPReply:
    return HTTPReply(200, {"content-type": "application/json"}, json.dumps(value).encode())


def read_all(codec: Any, events: list[dict[str, Any]]) -> Any:
    reader = codec.reader()
    text = "".join(reader.feed(ServerEvent(e.get("type", ""), json.dumps(e))) for e in events)
    whole = reader.finish()
    assert whole.text == text
    return whole


def test_the_recordings_are_valid() -> None:
    """The provider's own SDK accepts each recorded answer and event."""
    for answer in (recorded.OPENAI, recorded.OPENAI_TOOLS):
        openai_chat.ChatCompletion.model_validate(answer, strict=True)
    for event in recorded.OPENAI_STREAM + recorded.OPENAI_TOOL_STREAM:
        openai_chat.ChatCompletionChunk.model_validate(event, strict=True)
    for answer in (recorded.ANTHROPIC, recorded.ANTHROPIC_TOOLS):
        anthropic_types.Message.model_validate(answer, strict=True)
    events = TypeAdapter(anthropic_types.RawMessageStreamEvent)
    for event in recorded.ANTHROPIC_STREAM + recorded.ANTHROPIC_TOOL_STREAM:
        if event["type"] != "ping":  # the SDK filters these out before it parses events
            events.validate_python(event)
    for answer in [recorded.GEMINI, recorded.GEMINI_TOOLS, recorded.GEMINI_BLOCKED]:
        genai.GenerateContentResponse.model_validate(answer)
    for event in recorded.GEMINI_STREAM:
        genai.GenerateContentResponse.model_validate(event)


@codecs
def test_answers_are_read(
    codec: Any, answer: Any, stream: Any, tools: Any, tool_stream: Any
) -> None:
    """Text, finish reason, usage with cached tokens, and model; whole or streamed."""
    for completion in (codec.read(reply(answer)), read_all(codec, stream)):
        assert completion.text == "Hello! How can I assist you today?"
        assert completion.finish_reason == "stop"
        assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (19, 10)
        assert completion.usage.cached_tokens == 4
        assert completion.model
        assert not completion.has_tool_calls


@codecs
def test_tool_calls_are_read(
    codec: Any, answer: Any, stream: Any, tools: Any, tool_stream: Any
) -> None:
    """Name and arguments, also when they come in pieces of a stream."""
    for completion in (codec.read(reply(tools)), read_all(codec, tool_stream)):
        assert completion.finish_reason == "tool_calls"
        assert completion.has_tool_calls
        assert [(c.name, c.arguments) for c in completion.tool_calls] == [
            ("weather", {"city": "Bern"})
        ]


@codecs
def test_a_truncated_stream_is_not_an_answer(
    codec: Any, answer: Any, stream: Any, tools: Any, tool_stream: Any
) -> None:
    """Without the provider's end marker, an answer is not complete."""
    for end in range(len(stream)):
        cut = stream[:end]
        text = json.dumps(cut)
        if "message_stop" in text or '"STOP"' in text or '"finish_reason": "stop"' in text:
            continue
        with pytest.raises(UnavailableError, match="broke off"):
            read_all(codec, cut)


def test_a_blocked_prompt_is_an_empty_answer() -> None:
    """Gemini answers a blocked prompt without candidates; that is read as filtered."""
    completion = Gemini(api_key="k").read(reply(recorded.GEMINI_BLOCKED))
    assert (completion.text, completion.finish_reason) == ("", "content_filter")


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("stop_sequence", "stop"),
        ("refusal", "content_filter"),
        ("pause_turn", "pause_turn"),
    ],
)
def test_finish_reasons_use_openai_s_names(reason: str, expected: str) -> None:
    """Reasons without an equivalent are kept."""
    answer = {**recorded.ANTHROPIC, "stop_reason": reason}
    assert Anthropic(api_key="k").read(reply(answer)).finish_reason == expected


def test_tool_calls_without_an_index() -> None:
    """Some servers leave it out: an id starts the next call, no id continues the last one."""

    def event(**call: Any) -> dict[str, Any]:
        return {"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}

    completion = read_all(
        OpenAICompatible(api_key="k"),
        [
            event(id="c1", function={"name": "f", "arguments": '{"a"'}),
            event(function={"arguments": ": 1}"}),
            event(id="c2", function={"name": "g", "arguments": '{"b": 2}'}),
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
        ],
    )
    assert completion.tool_calls == (
        ToolCallPart("c1", "f", {"a": 1}),
        ToolCallPart("c2", "g", {"b": 2}),
    )
