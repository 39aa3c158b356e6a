"""Which answers are whole: one in a provider's form must say so, an application's own is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from semcache import SemanticCache
from semcache.engine.record import StoragePolicy
from semcache.providers.reading import read_answer, read_stream, read_value
from semcache.types import Completion

JSON = dict[str, Any]


def stored(completion: Completion | None) -> bool:
    """Whether the answer would be stored; an own form is, with its value as the payload."""
    kept = completion or Completion("", payload={}, payload_kind="json")
    return StoragePolicy().reason_against(kept) is None


def choice(text: str, reason: str | None, index: int = 0, **message: Any) -> JSON:
    return {
        "index": index,
        "message": {"role": "assistant", "content": text, **message},
        "finish_reason": reason,
    }


def chat(*choices: JSON) -> JSON:
    return {"id": "1", "object": "chat.completion", "model": "m", "choices": list(choices)}


def piece(text: str, reason: str | None = None, index: int = 0, **delta: Any) -> JSON:
    return {
        "object": "chat.completion.chunk",
        "choices": [{"index": index, "delta": {"content": text, **delta}, "finish_reason": reason}],
    }


def message(reason: str | None) -> JSON:
    block = {"type": "text", "text": "x"}
    return {"type": "message", "role": "assistant", "content": [block], "stop_reason": reason}


def gemini(reason: str | None, *others: str | None) -> JSON:
    def candidate(reason: str | None) -> JSON:
        content = {"content": {"parts": [{"text": "x"}], "role": "model"}}
        return content if reason is None else {**content, "finishReason": reason}

    return {"candidates": [candidate(reason), *map(candidate, others)]}


def response(status: str, *blocks: JSON) -> JSON:
    items = [{"type": "message", "content": list(blocks)}] if blocks else []
    return {"object": "response", "status": status, "output": items}


TEXT = {"type": "output_text", "text": "x"}

WHOLE = {
    "chat": chat(choice("x", "stop")),
    "chat with two choices": chat(choice("x", "stop"), choice("y", "stop", 1)),
    "chat finished by an end-of-sequence token": chat(choice("x", "eos")),
    "text completion": {
        "object": "text_completion",
        "choices": [{"index": 0, "text": "x", "finish_reason": "stop"}],
    },
    "responses": response("completed", TEXT),
    "anthropic": message("end_turn"),
    "anthropic at a stop sequence": message("stop_sequence"),
    "gemini": gemini("STOP"),
    "gemini with two candidates": gemini("STOP", "STOP"),
    "ollama": {"message": {"role": "assistant", "content": "x"}, "done": True},
    "ollama with a reason": {"response": "x", "done": True, "done_reason": "stop"},
    "bedrock": {
        "output": {"message": {"role": "assistant", "content": [{"text": "x"}]}},
        "stopReason": "end_turn",
    },
    "cohere": {
        "message": {"content": [{"type": "text", "text": "x"}]},
        "finish_reason": "COMPLETE",
    },
    "langchain": {"content": "x", "response_metadata": {"finish_reason": "stop"}},
    "text generation inference": {"generated_text": "x", "details": {"finish_reason": "eos_token"}},
    "llama.cpp": {"content": "x", "stop": True, "stop_type": "eos"},
}

NOT_WHOLE = {
    "chat without a finish reason": chat(choice("x", None)),
    "chat whose finish reason was dropped": chat(
        {"index": 0, "message": {"role": "assistant", "content": "x"}}
    ),
    "chat whose second choice was cut off": chat(choice("x", "stop"), choice("y", "length", 1)),
    "chat whose second choice has no reason": chat(choice("x", "stop"), choice("y", None, 1)),
    "chat whose second choice is a refusal": chat(
        choice("x", "stop"), choice("", "stop", 1, refusal="I cannot help with that.")
    ),
    "chat whose second choice calls a tool": chat(choice("x", "stop"), choice("", "tool_calls", 1)),
    "text completion cut off": {
        "object": "text_completion",
        "choices": [{"index": 0, "text": "x", "finish_reason": "length"}],
    },
    "responses in progress": response("in_progress", TEXT),
    "responses failed": response("failed", TEXT),
    "responses without output": response("incomplete"),
    "responses refused": response("completed", {"type": "refusal", "refusal": "no"}),
    "anthropic without a stop reason": message(None),
    "anthropic paused": message("pause_turn"),
    "gemini without a finish reason": gemini(None),
    "gemini with an unspecified reason": gemini("FINISH_REASON_UNSPECIFIED"),
    "gemini whose second candidate was cut off": gemini("STOP", "MAX_TOKENS"),
    "gemini blocked": {"promptFeedback": {"blockReason": "SAFETY"}},
    "ollama not done": {"model": "m", "response": "x", "done": False},
    "a vllm error": {"object": "error", "message": "overloaded", "code": 503},
    "ollama cut off": {"response": "x", "done": True, "done_reason": "length"},
    "bedrock cut off": {
        "output": {"message": {"role": "assistant", "content": [{"text": "x"}]}},
        "stopReason": "max_tokens",
    },
    "cohere cut off": {"message": {"content": [{"text": "x"}]}, "finish_reason": "MAX_TOKENS"},
    "langchain cut off": {"content": "x", "response_metadata": {"stop_reason": "max_tokens"}},
    "langchain calling a tool": {
        "content": "x",
        "tool_calls": [{"name": "f", "args": {}}],
        "response_metadata": {"finish_reason": "stop"},
    },
    "text generation inference cut off": {
        "generated_text": "x",
        "details": {"finish_reason": "length"},
    },
    "llama.cpp cut off": {"content": "x", "stop": True, "stop_type": "limit"},
    "an openai error": {"error": {"message": "overloaded", "type": "server_error", "code": None}},
    "an anthropic error": {"type": "error", "error": {"type": "x", "message": "overloaded"}},
    "an ollama error": {"error": "model not found"},
}

OWN: dict[str, JSON] = {
    "an error that is None": {"answer": "x", "error": None},
    "an error beside an answer": {"answer": "x", "error": "timeout of the second source"},
    "an error that is a number": {"estimate": 5, "error": 0.03},
    "an error with details": {"estimate": 5, "error": {"mean": 0.1}},
    "a status": {"status": "failed", "reason": "x"},
    "a status and an output": {"status": "succeeded", "output": ["a.png"]},
    "an output of records": {"status": "open", "output": [{"id": 1}]},
    "choices": {"choices": [{"text": "A"}, {"text": "B"}]},
    "choices with messages": {"choices": [{"message": {"de": "ja"}}]},
    "candidates": {"candidates": [{"name": "Ada"}]},
    "content": {"content": ["a", "b"], "type": "message"},
    "done": {"done": False, "text": "x"},
    "a message": {"message": "x", "finish_reason": None},
    "a response": {"response": {"a": 1}},
    "a kind": {"type": "chunk"},
    "a task": {"message": {"title": "Buy milk"}, "done": False},
    "a response not done": {"response": "x", "done": False},
    "candidates with a content": {"candidates": [{"name": "Ada", "content": {"cv": 1}}]},
    "a message of a chat": {"type": "message", "content": ["x"], "usage": "free"},
    "a stop reason": {"content": ["x"], "stop_reason": None},
    "choices of people": {"choices": [{"message": {"role": "x", "title": "y"}}]},
    "a kind of stop": {"content": "x", "stop_type": "request"},
    "a heartbeat": {"type": "ping"},
    "a kind of response": {"type": "response.mine"},
    "a share": {"choices": [{"delta": "3%"}]},
    "usage metadata": {"usageMetadata": {"page": 1}},
    "an error event": {"type": "error", "code": 7},
}


@pytest.mark.parametrize("answer", WHOLE.values(), ids=WHOLE)
def test_a_whole_answer_is_stored_with_its_text(answer: JSON) -> None:
    completion = read_answer(answer)
    assert completion is not None
    assert completion.text == "x"
    assert completion.finish_reason == "stop"
    assert stored(completion)


@pytest.mark.parametrize("answer", NOT_WHOLE.values(), ids=NOT_WHOLE)
def test_an_answer_that_does_not_say_that_it_is_whole_is_not_stored(answer: JSON) -> None:
    assert not stored(read_answer(answer))


@pytest.mark.parametrize("answer", OWN.values(), ids=OWN)
def test_an_applications_own_value_is_stored(answer: JSON) -> None:
    """Although it has a field that some provider's answers have, too."""
    assert read_answer(answer) is None
    assert read_stream([answer]).finish_reason is None


CUT_OFF = chat(choice("x", "length"))

OTHERS: dict[str, tuple[bool, Any]] = {
    "cohere v1": (True, {"text": "x", "generation_id": "g", "finish_reason": "COMPLETE"}),
    "cohere v1 cut": (False, {"text": "x", "generation_id": "g", "finish_reason": "MAX_TOKENS"}),
    "cohere calls a tool": (
        False,
        {"message": {"tool_calls": [{"id": "a"}]}, "finish_reason": "TOOL_CALL"},
    ),
    "titan": (True, {"results": [{"outputText": "x", "completionReason": "FINISH"}]}),
    "titan cut": (False, {"results": [{"outputText": "x", "completionReason": "LENGTH"}]}),
    "llama on bedrock cut": (
        False,
        {"generation": "x", "generation_token_count": 3, "stop_reason": "length"},
    ),
    "mistral on bedrock cut": (False, {"outputs": [{"text": "x", "stop_reason": "length"}]}),
    "watsonx cut": (False, {"results": [{"generated_text": "x", "stop_reason": "max_tokens"}]}),
    "dashscope": (True, {"output": {"text": "x", "finish_reason": "stop"}, "request_id": "r"}),
    "dashscope cut": (False, {"output": {"text": "x", "finish_reason": "length"}}),
    "dashscope's message cut": (
        False,
        {"output": {"choices": [{"finish_reason": "length", "message": {"content": "x"}}]}},
    ),
    "text generation inference": (True, [{"generated_text": "x"}]),
    "text generation inference cut": (
        False,
        [{"generated_text": "x", "details": {"finish_reason": "length"}}],
    ),
    "replicate": (
        True,
        {"id": "x", "version": "v", "input": {}, "output": ["x"], "status": "succeeded"},
    ),
    "replicate has begun": (
        False,
        {"id": "x", "version": "v", "input": {}, "output": None, "status": "starting"},
    ),
    "hugging face loads": (False, {"error": "Model is loading", "estimated_time": 20.0}),
    "google's list of errors": (False, [{"error": {"code": 429, "message": "x"}}]),
    "langchain on bedrock": (
        False,
        {"content": "x", "response_metadata": {"stopReason": ["max_tokens"]}, "type": "ai"},
    ),
    "langchain's own form": (
        False,
        {
            "lc": 1,
            "type": "constructor",
            "kwargs": {"content": "x", "response_metadata": {"finish_reason": "length"}},
        },
    ),
    "responses cut in silence": (
        False,
        {**response("completed", TEXT), "max_output_tokens": 5, "usage": {"output_tokens": 5}},
    ),
    "beside its time": (True, {"raw": chat(choice("x", "stop")), "ms": 12}),
    "beside its time, cut": (False, {"raw": CUT_OFF, "ms": 12}),
    "among several, cut": (False, [chat(choice("x", "stop")), CUT_OFF]),
    "own invoice": (True, {"status": "incomplete", "output": [{"type": "function_call"}]}),
    "own job": (True, {"status": "pending", "output": [{"content": [TEXT]}]}),
    "own message": (True, {"type": "message", "content": [{"type": "text"}], "usage": {"s": 2}}),
    "own race": (True, {"message": {"content": "x"}, "finish_reason": "crash"}),
    "own laboratory": (True, {"generated_text": "x", "details": {"finish_reason": "n/a"}}),
    "own explanation": (True, {"error": {"message": "KeyError"}, "type": "explanation"}),
}


@pytest.mark.parametrize(("whole", "value"), OTHERS.values(), ids=OTHERS)
def test_answers_of_other_providers_and_what_looks_like_them(whole: bool, value: Any) -> None:
    """A value of any form, as it would be stored."""
    assert stored(read_value(value)) is whole


def sse(*chunks: JSON | str) -> list[str]:
    return [f"data: {c if isinstance(c, str) else json.dumps(c)}\n\n" for c in chunks]


LLAMA = {"index": 0, "content": "x", "tokens": [1], "stop": False}
DELTA = {"type": "text-delta", "id": "0", "delta": "x"}
RUN_TEXT = {
    "data": {"object": "thread.message.delta", "delta": {"content": [{"text": {"value": "x"}}]}}
}
OTHER_STREAMS: dict[str, tuple[bool, list[Any]]] = {
    "server-sent events": (True, sse(piece("x"), piece("", "stop"), "[DONE]")),
    "server-sent events cut": (False, sse(piece("x"), piece("", "length"), "[DONE]")),
    "server-sent events broken": (False, [c.encode() for c in sse(piece("x"))]),
    "server-sent events of anthropic's": (
        False,
        [
            'event: content_block_delta\ndata: {"type": "content_block_delta", "delta": '
            '{"type": "text_delta", "text": "x"}}\n\n'
        ],
    ),
    "server-sent events without a space": (
        False,
        [c.replace("data: ", "data:") for c in sse(piece("x"))],
    ),
    "server-sent events after a comment": (False, [": ping\n\n", *sse(piece("x"))]),
    "server-sent events cut anywhere": (False, list("".join(sse(piece("x"), piece("", "length"))))),
    "server-sent events cut anywhere, whole": (True, list("".join(sse(piece("x", "stop"))))),
    "lines of ollama's": (False, ['{"model": "m", "message": {"content": "x"}, "done": false}\n']),
    "lines of one's own": (True, ['{"row": 1}\n', '{"row": 2}\n']),
    "json that is no stream": (True, ["{", '"answer": 1', "}"]),
    "server-sent events of one's own": (True, sse({"progress": 1}, {"text": "x"})),
    "llama.cpp": (True, [LLAMA, {**LLAMA, "stop": True, "stop_type": "eos"}]),
    "llama.cpp cut": (False, [LLAMA, {**LLAMA, "stop": True, "stop_type": "limit"}]),
    "llama.cpp broken": (False, [LLAMA]),
    "ai sdk": (True, [{"type": "start"}, DELTA, {"type": "finish"}]),
    "ai sdk cut": (False, [DELTA, {"type": "finish", "finishReason": "length"}]),
    "ai sdk failed": (False, [DELTA, {"type": "error", "errorText": "x"}]),
    "wrapped": (True, [{"event": "chunk", "data": piece("x", "stop")}]),
    "wrapped, broken": (False, [{"event": "chunk", "data": piece("x")}]),
    "a run of an assistant": (
        True,
        [RUN_TEXT, {"data": {"object": "thread.run", "status": "completed"}}],
    ),
    "a run of an assistant cut": (
        False,
        [{"data": {"object": "thread.run", "status": "incomplete"}}],
    ),
}


@pytest.mark.parametrize(("whole", "chunks"), OTHER_STREAMS.values(), ids=OTHER_STREAMS)
def test_streams_of_other_forms(whole: bool, chunks: list[Any]) -> None:
    """Likewise."""
    assert stored(read_stream(chunks)) is whole


@pytest.mark.parametrize("reason", ["stop", "length"])
def test_a_stream_passed_on_as_server_sent_events(cache: SemanticCache, reason: str) -> None:
    """Stored if it is whole, and replayed as it was."""
    pieces = sse(piece("x"), piece("", reason), "[DONE]")
    calls: list[str] = []

    @cache.cached
    def ask(prompt: str) -> Iterator[str]:
        calls.append(prompt)
        yield from pieces

    assert list(ask("q")) == list(ask("q")) == pieces
    assert len(calls) == (1 if reason == "stop" else 2)


ANTHROPIC = [
    {"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {}},
    {"type": "message_stop"},
]
RESPONSES = [
    {"type": "response.created", "response": {"status": "in_progress", "output": []}},
    {"type": "response.output_text.delta", "delta": "x"},
    {"type": "response.completed", "response": response("completed", TEXT)},
]
USAGE = {"object": "chat.completion.chunk", "choices": [], "usage": {"prompt_tokens": 1}}
AZURE = {"object": "", "choices": [], "prompt_filter_results": []}
HELPER = [{"type": "chunk", "chunk": piece("x", "stop")}, {"type": "content.done", "content": "x"}]

WHOLE_STREAMS: dict[str, list[Any]] = {
    "text": ["x", ""],
    "chat": [piece("x"), piece("", "stop"), USAGE],
    "azure": [AZURE, piece("x"), piece("", "stop")],
    "two choices": [piece("x", "stop"), piece("y", index=1), piece("", "stop", 1)],
    "the openai package's helper": HELPER,
    "responses": RESPONSES,
    "anthropic": ANTHROPIC,
    "gemini": [gemini("STOP")],
    "ollama": [
        {"message": {"role": "assistant", "content": "x"}, "done": False},
        {"message": {}, "done": True},
    ],
    "cohere": [
        {"type": "content-delta", "delta": {"message": {"content": {"text": "x"}}}},
        {"type": "message-end", "delta": {"finish_reason": "COMPLETE"}},
    ],
    "bedrock": [
        {"contentBlockDelta": {"delta": {"text": "x"}}},
        {"messageStop": {"stopReason": "end_turn"}},
    ],
    "llama.cpp": [
        {"content": "x", "stop": False, "id_slot": 0},
        {"content": "", "stop": True, "id_slot": 0, "stop_type": "eos"},
    ],
}
CUT_STREAMS: dict[str, list[Any]] = {
    "chat": [piece("x"), USAGE],
    "chat after its first chunk": [{**AZURE, "object": "chat.completion.chunk"}],
    "chat with an error": [piece("x"), {"error": {"message": "overloaded"}}],
    "a second choice": [piece("x", "stop"), piece("y", index=1)],
    "a second choice by length": [piece("x", "stop"), piece("y", "length", 1)],
    "a refusal": [piece("", refusal="I cannot"), piece("", "stop")],
    "the openai package's helper": [*HELPER[1:], {"type": "chunk", "chunk": piece("x")}],
    "responses": RESPONSES[:-1],
    "responses failed": [
        *RESPONSES[:-1],
        {"type": "response.failed", "response": response("failed", TEXT)},
    ],
    "anthropic before its stop": ANTHROPIC[:-1],
    "anthropic before its reason": ANTHROPIC[:-2],
    "anthropic without a reason": [*ANTHROPIC[:-2], {"type": "message_stop"}],
    "anthropic with an error": [*ANTHROPIC[:3], {"type": "error", "error": {"message": "x"}}],
    "gemini": [gemini(None), gemini(None)],
    "gemini's second candidate": [gemini("STOP", None)],
    "ollama": [{"message": {"content": "x"}, "done": False}],
    "cohere by length": [
        {"type": "content-delta", "delta": {"message": {"content": {"text": "x"}}}},
        {"type": "message-end", "delta": {"finish_reason": "MAX_TOKENS"}},
    ],
    "cohere": [{"type": "content-delta", "delta": {"message": {"content": {"text": "x"}}}}],
    "bedrock by length": [
        {"contentBlockDelta": {"delta": {"text": "x"}}},
        {"messageStop": {"stopReason": "max_tokens"}},
    ],
    "bedrock throttled": [
        {"contentBlockDelta": {"delta": {"text": "x"}}},
        {"throttlingException": {"message": "slow down"}},
    ],
    "text generation inference by length": [
        {"token": {"text": "x"}, "generated_text": None},
        {"token": {"text": ""}, "generated_text": "x", "details": {"finish_reason": "length"}},
    ],
    "langchain by length": [
        {"type": "AIMessageChunk", "content": "x", "response_metadata": {}},
        {
            "type": "AIMessageChunk",
            "content": "",
            "response_metadata": {"finish_reason": "length"},
        },
    ],
    "llama.cpp by length": [
        {"content": "x", "stop": False, "id_slot": 0},
        {"content": "", "stop": True, "id_slot": 0, "stop_type": "limit"},
    ],
    "llama.cpp": [{"content": "x", "stop": False, "id_slot": 0}],
    "ollama by length": [{"response": "x", "done": True, "done_reason": "length"}],
}


@pytest.mark.parametrize("chunks", WHOLE_STREAMS.values(), ids=WHOLE_STREAMS)
def test_a_stream_that_came_to_its_end_is_stored(chunks: list[Any]) -> None:
    completion = read_stream(chunks)
    assert completion.text == "x"
    assert stored(completion)


@pytest.mark.parametrize("chunks", CUT_STREAMS.values(), ids=CUT_STREAMS)
def test_a_stream_without_its_end_is_not_stored(chunks: list[Any]) -> None:
    assert not stored(read_stream(chunks))
