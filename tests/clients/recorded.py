"""Answers as the providers send them, byte by byte, in the shapes that their references document.

Sources: the API references of OpenAI, Azure OpenAI, Groq, OpenRouter, Mistral, DeepSeek, Anthropic
and Gemini, the servers of llama.cpp, vLLM and Ollama, and the types of the providers' packages.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

TEXT = "Hello! Wie geht's? 👋\u2028Ünïcödé"
"""The words of most answers; U+2028 is no line break in JSON or in an event stream."""

JSON_TEXT = '{"city": "Bern", "degrees": 21}'


@dataclass(frozen=True)
class Recorded:
    """One answer.

    Attributes:
        api: "chat", "responses", "completions", "embeddings", "messages", "generate" or "plain"
            (no SDK: the JSON values themselves).
        whole: whether the answer says that it ended, with its API's own end marker: a finish
            reason, `response.completed`, `message_stop`, `done`.
        kept: whether a cache with default options stores it: it is whole, stopped by itself, and
            has words but no tool calls.
        text: its words, as far as it came.
    """

    provider: str
    shape: str
    api: str
    streamed: bool
    body: bytes
    whole: bool
    kept: bool
    text: str

    def __str__(self) -> str:
        return f"{self.provider} {self.shape}{' stream' if self.streamed else ''}"


RECORDED: list[Recorded] = []


def _whole(
    provider: str,
    shape: str,
    api: str,
    body: Any,
    *,
    text: str = TEXT,
    kept: bool = True,
    whole: bool = True,
) -> Recorded:
    encoded = json.dumps(body, ensure_ascii=False).encode()
    return _add(Recorded(provider, shape, api, False, encoded, whole, kept, text))


def _stream(
    provider: str,
    shape: str,
    api: str,
    events: list[Any],
    *,
    text: str = TEXT,
    kept: bool = True,
    whole: bool = True,
    done: bool = True,
) -> Recorded:
    lines = [event if isinstance(event, str) else _event(api, event) for event in events]
    if api in ("chat", "completions") and done:
        lines.append("data: [DONE]\n\n")
    body = "".join(lines).encode()
    return _add(Recorded(provider, shape, api, True, body, whole, kept, text))


def _add(recorded: Recorded) -> Recorded:
    RECORDED.append(recorded)
    return recorded


def _event(api: str, event: Any) -> str:
    data = json.dumps(event, ensure_ascii=False)
    if api == "plain":
        return f"{data}\n"
    if api in ("messages", "responses"):
        return f"event: {event['type']}\ndata: {data}\n\n"
    return f"data: {data}\r\n\r\n" if api == "generate" else f"data: {data}\n\n"


def _halves(text: str) -> tuple[str, str]:
    return text[: len(text) // 2], text[len(text) // 2 :]


def _without(mapping: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name not in names}


# ------------------------------------------------------------------- OpenAI: chat completions

USAGE = {
    "prompt_tokens": 19,
    "completion_tokens": 10,
    "total_tokens": 29,
    "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
    "completion_tokens_details": {
        "reasoning_tokens": 0,
        "audio_tokens": 0,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    },
}
_TOOL_CALL = {
    "id": "call_abc",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Bern"}'},
}
_LOGPROB = {"token": "Hello", "logprob": -0.1, "bytes": [72, 101], "top_logprobs": []}


def _choice(content: Any = TEXT, reason: Any = "stop", **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content, "refusal": None, "annotations": []}
    message |= more.pop("message", {})
    return {"index": 0, "message": message, "logprobs": None, "finish_reason": reason, **more}


def _chat(*choices: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
        "object": "chat.completion",
        "created": 1741569952,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": list(choices) or [_choice()],
        "usage": USAGE,
        "service_tier": "default",
        "system_fingerprint": "fp_44709d6fcb",
        **more,
    }


def _delta(delta: dict[str, Any], reason: Any = None, **choice: Any) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason, **choice}


def _chunk(*choices: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-123",
        "object": "chat.completion.chunk",
        "created": 1694268190,
        "model": "gpt-4o-mini-2024-07-18",
        "service_tier": "default",
        "system_fingerprint": "fp_44709d6fcb",
        "choices": list(choices),
        "usage": None,
        **more,
    }


def _chunks(text: str = TEXT, reason: Any = "stop", **more: Any) -> list[dict[str, Any]]:
    first, second = _halves(text)
    return [
        _chunk(_delta({"role": "assistant", "content": "", "refusal": None}), **more),
        _chunk(_delta({"content": first}), **more),
        _chunk(_delta({"content": second}), **more),
        _chunk(_delta({}, reason), **more),
    ]


_USAGE_CHUNK = _chunk(usage=USAGE)

OPENAI = _whole("openai", "chat", "chat", _chat())
OPENAI_JSON = _whole("openai", "json", "chat", _chat(_choice(JSON_TEXT)), text=JSON_TEXT)
_whole(
    "openai",
    "citations",
    "chat",
    _chat(
        _choice(
            message={
                "annotations": [
                    {
                        "type": "url_citation",
                        "url_citation": {
                            "start_index": 0,
                            "end_index": 5,
                            "title": "T",
                            "url": "https://example.com",
                        },
                    }
                ]
            }
        )
    ),
)
OPENAI_TOOLS = _whole(
    "openai",
    "tools",
    "chat",
    _chat(_choice(None, "tool_calls", message={"tool_calls": [_TOOL_CALL]})),
    text="",
    kept=False,
)
_whole("openai", "n=2", "chat", _chat(_choice(), _choice("Second.", index=1)))
_whole(
    "openai",
    "refusal",
    "chat",
    _chat(_choice(None, message={"refusal": "I cannot."})),
    text="",
    kept=False,
)
_whole(
    "openai",
    "logprobs",
    "chat",
    _chat(_choice(logprobs={"content": [_LOGPROB], "refusal": None})),
)
_whole("openai", "cut", "chat", _chat(_choice(reason="length")), kept=False)
OPENAI_STREAM = _stream(
    "openai", "chat", "chat", [{**c, "obfuscation": "aB3"} for c in [*_chunks(), _USAGE_CHUNK]]
)
OPENAI_JSON_STREAM = _stream(
    "openai", "json", "chat", [*_chunks(JSON_TEXT), _USAGE_CHUNK], text=JSON_TEXT
)
OPENAI_TOOL_STREAM = _stream(
    "openai",
    "tools",
    "chat",
    [
        _chunk(
            _delta(
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {
                            **_TOOL_CALL,
                            "index": 0,
                            "function": {"name": "weather", "arguments": ""},
                        }
                    ],
                }
            )
        ),
        _chunk(_delta({"tool_calls": [{"index": 0, "function": {"arguments": '{"city": '}}]})),
        _chunk(_delta({"tool_calls": [{"index": 0, "function": {"arguments": '"Bern"}'}}]})),
        _chunk(_delta({}, "tool_calls")),
    ],
    text="",
    kept=False,
)
_stream(
    "openai",
    "n=2",
    "chat",
    [
        _chunk(_delta({"role": "assistant", "content": TEXT})),
        _chunk(_delta({"role": "assistant", "content": "Second."}, index=1)),
        _chunk(_delta({}, "stop", index=1)),
        _chunk(_delta({}, "stop")),
    ],
)
_stream(
    "openai",
    "refusal",
    "chat",
    [_chunk(_delta({"role": "assistant", "refusal": "I cannot."})), _chunk(_delta({}, "stop"))],
    text="",
    kept=False,
)
_stream(
    "openai",
    "logprobs",
    "chat",
    [
        _chunk(_delta({"content": TEXT}, logprobs={"content": [_LOGPROB], "refusal": None})),
        _chunk(_delta({}, "stop")),
    ],
)
_stream("openai", "broken off", "chat", _chunks()[:-1], whole=False, kept=False, done=False)
_stream("openai", "n=2, one broken off", "chat", [
    _chunk(_delta({"content": TEXT})),
    _chunk(_delta({"content": "Sec"}, index=1)),
    _chunk(_delta({}, "stop")),
], whole=False, kept=False)  # fmt: skip

# ------------------------------------------------------------------------ OpenAI: responses

_PART = {"type": "output_text", "text": TEXT, "annotations": [], "logprobs": []}
_REASONING = {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "gAAA"}
_CALL = {
    "id": "fc_1",
    "type": "function_call",
    "status": "completed",
    "call_id": "call_1",
    "name": "weather",
    "arguments": '{"city": "Bern"}',
}


def _item(*parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": list(parts),
        **more,
    }


def _response(*output: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "id": "resp_67ccd2bed1ec8190b14f964abc054267",
        "object": "response",
        "created_at": 1741476542,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "model": "gpt-4.1-2025-04-14",
        "output": list(output),
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": {
            "input_tokens": 36,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 87,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 123,
        },
        "user": None,
        "metadata": {},
        **more,
    }


def _numbered(*events: dict[str, Any]) -> list[Any]:
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


def _response_events(text: str = TEXT) -> list[dict[str, Any]]:
    part = {**_PART, "text": text}
    begun = _response(status="in_progress", usage=None)
    at: dict[str, Any] = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    empty = {**part, "text": ""}
    return [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": _item(status="in_progress"),
        },
        {"type": "response.content_part.added", **at, "part": empty},
        *(
            {"type": "response.output_text.delta", **at, "delta": half, "logprobs": []}
            for half in _halves(text)
        ),
        {"type": "response.output_text.done", **at, "text": text, "logprobs": []},
        {"type": "response.content_part.done", **at, "part": part},
        {"type": "response.output_item.done", "output_index": 0, "item": _item(part)},
        {"type": "response.completed", "response": _response(_item(part))},
    ]


RESPONSE = _whole("openai", "response", "responses", _response(_REASONING, _item(_PART)))
RESPONSE_JSON = _whole(
    "openai",
    "response json",
    "responses",
    _response(_item({**_PART, "text": JSON_TEXT})),
    text=JSON_TEXT,
)
_whole("openai", "response tools", "responses", _response(_CALL), text="", kept=False)
_whole(
    "openai",
    "response refusal",
    "responses",
    _response(_item({"type": "refusal", "refusal": "I cannot."})),
    text="",
    kept=False,
)
_whole(
    "openai",
    "response search",
    "responses",
    _response(
        {
            "type": "web_search_call",
            "id": "ws_1",
            "status": "completed",
            "action": {"type": "search", "query": "q", "queries": ["q"]},
        },
        _item(
            {
                **_PART,
                "annotations": [
                    {
                        "type": "url_citation",
                        "start_index": 0,
                        "end_index": 5,
                        "url": "https://example.com",
                        "title": "T",
                    }
                ],
            }
        ),
    ),
)
_whole(
    "openai",
    "response incomplete",
    "responses",
    _response(
        _item(_PART), status="incomplete", incomplete_details={"reason": "max_output_tokens"}
    ),
    kept=False,
)
_whole(
    "openai",
    "response of a new item",
    "responses",
    _response({"type": "dream", "id": "dr_1", "images": [{"n": 1}]}, _item(_PART)),
)
_whole(
    "vllm",
    "response",
    "responses",
    _without(_response(_item(_without(_PART, "logprobs"))), "error", "metadata", "store", "user"),
)
RESPONSE_STREAM = _stream("openai", "response", "responses", _numbered(*_response_events()))
RESPONSE_JSON_STREAM = _stream(
    "openai",
    "response json",
    "responses",
    _numbered(*_response_events(JSON_TEXT)),
    text=JSON_TEXT,
)
_stream(
    "openai",
    "response of a new event",
    "responses",
    _numbered(
        {"type": "response.dream.added", "dream": {"n": 1}},
        *_response_events(),
    ),
)
_stream(
    "openai",
    "response tools",
    "responses",
    _numbered(
        {"type": "response.created", "response": _response(status="in_progress")},
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": {**_CALL, "arguments": "", "status": "in_progress"},
        },
        {
            "type": "response.function_call_arguments.delta",
            "item_id": "fc_1",
            "output_index": 0,
            "delta": '{"city": "Bern"}',
        },
        {
            "type": "response.function_call_arguments.done",
            "item_id": "fc_1",
            "output_index": 0,
            "name": "weather",
            "arguments": '{"city": "Bern"}',
        },
        {"type": "response.output_item.done", "output_index": 0, "item": _CALL},
        {"type": "response.completed", "response": _response(_CALL)},
    ),
    text="",
    kept=False,
)
_stream(
    "openai",
    "response broken off",
    "responses",
    _numbered(*_response_events()[:-1]),
    whole=False,
    kept=False,
)

# --------------------------------------------------- OpenAI: text completions and embeddings


def _completion(text: str = TEXT, reason: Any = "stop", **more: Any) -> dict[str, Any]:
    return {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": 1589478378,
        "model": "gpt-3.5-turbo-instruct",
        "choices": [{"text": text, "index": 0, "logprobs": None, "finish_reason": reason}],
        **more,
    }


_FIRST, _SECOND = _halves(TEXT)

_whole("openai", "completion", "completions", _completion(usage=USAGE))
_stream(
    "openai",
    "completion",
    "completions",
    [_completion(_FIRST, None), _completion(_SECOND, "stop")],
)
_stream(
    "openai",
    "completion broken off",
    "completions",
    [_completion(TEXT, None)],
    whole=False,
    kept=False,
)


def _embeddings(embedding: Any, **more: Any) -> dict[str, Any]:
    return {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": embedding}],
        "model": "text-embedding-3-small",
        "usage": {"prompt_tokens": 8, "total_tokens": 8},
        **more,
    }


_whole("openai", "embeddings", "embeddings", _embeddings([0.1, -0.25, 1e-9]), text="")
_whole("openai", "embeddings in base64", "embeddings", _embeddings("AACAPwAAAMA="), text="")
_whole(
    "ollama",
    "embeddings",
    "embeddings",
    _without(_embeddings([0.5, 1]), "usage"),
    text="",
)

# -------------------------------------------------------------- servers compatible with OpenAI

_SAFE = {
    category: {"filtered": False, "severity": "safe"}
    for category in ("hate", "self_harm", "sexual", "violence")
}
_PROMPT_FILTER = [{"prompt_index": 0, "content_filter_results": _SAFE}]

_whole(
    "azure",
    "chat",
    "chat",
    _chat(_choice(content_filter_results=_SAFE), prompt_filter_results=_PROMPT_FILTER),
)
_stream(
    "azure",
    "chat",
    "chat",
    [
        {
            "id": "",
            "object": "",
            "created": 0,
            "model": "",
            "choices": [],
            "prompt_filter_results": _PROMPT_FILTER,
        },
        *(
            _chunk({**chunk["choices"][0], "content_filter_results": _SAFE if content else {}})
            for content, chunk in enumerate(_chunks())
        ),
        _USAGE_CHUNK,
    ],
)
_stream(
    "azure",
    "filters sent apart",
    "chat",
    [
        *_chunks(),
        {
            "id": "",
            "object": "",
            "created": 0,
            "model": "",
            "choices": [
                {
                    "index": 0,
                    "finish_reason": None,
                    "content_filter_results": _SAFE,
                    "content_filter_offsets": {"check_offset": 44, "start_offset": 44},
                }
            ],
        },
    ],
)
_whole(
    "azure",
    "filtered",
    "chat",
    _chat(_choice("", "content_filter", content_filter_results=_SAFE)),
    text="",
    kept=False,
)

_GROQ_USAGE = {
    "queue_time": 0.037,
    "prompt_tokens": 18,
    "prompt_time": 0.0006,
    "completion_tokens": 556,
    "completion_time": 0.463,
    "total_tokens": 574,
    "total_time": 0.464,
}
_GROQ = {"service_tier": "on_demand", "model": "llama-3.3-70b-versatile"}
_whole("groq", "chat", "chat", _chat(usage=_GROQ_USAGE, x_groq={"id": "req_01jbd6g2"}, **_GROQ))
_groq_chunks = _chunks(**_GROQ)
_stream(
    "groq",
    "chat",
    "chat",
    [
        {**_groq_chunks[0], "x_groq": {"id": "req_01jbd6g2"}},
        *_groq_chunks[1:-1],
        {**_groq_chunks[-1], "x_groq": {"id": "req_01jbd6g2", "usage": _GROQ_USAGE}},
    ],
)

_TIMINGS = {
    "cache_n": 0,
    "prompt_n": 12,
    "prompt_ms": 83.2,
    "prompt_per_second": 144,
    "predicted_n": 8,
    "predicted_ms": 101.7,
}
_whole(
    "llama.cpp",
    "chat",
    "chat",
    {
        "choices": [
            {
                "finish_reason": "stop",
                "index": 0,
                "message": {"role": "assistant", "content": TEXT},
            }
        ],
        "created": 1741569952,
        "model": "gpt-3.5-turbo",
        "system_fingerprint": "b4879-f08f4b31",
        "object": "chat.completion",
        "usage": {"completion_tokens": 8, "prompt_tokens": 12, "total_tokens": 20},
        "id": "chatcmpl-X",
        "timings": _TIMINGS,
    },
)
_llama_chunks = [
    {
        "choices": [{"finish_reason": reason, "index": 0, "delta": delta}],
        "created": 1741569952,
        "id": "chatcmpl-X",
        "model": "gpt-3.5-turbo",
        "object": "chat.completion.chunk",
    }
    for delta, reason in [
        ({"role": "assistant", "content": None}, None),
        ({"content": _FIRST}, None),
        ({"content": _SECOND}, None),
        ({}, "stop"),
    ]
]
_stream(
    "llama.cpp",
    "chat",
    "chat",
    [*_llama_chunks[:-1], {**_llama_chunks[-1], "timings": _TIMINGS}],
)
_stream(
    "llama.cpp",
    "completion",
    "completions",
    [
        {
            "choices": [{"text": text, "index": 0, "logprobs": None, "finish_reason": reason}],
            "created": 1741569952,
            "model": "m",
            "object": "text_completion",
            "id": "chatcmpl-X",
        }
        for text, reason in [(_FIRST, None), (_SECOND, None), ("", "stop")]
    ],
)
_stream(
    "llama-cpp-python",
    "completion without fields",
    "completions",
    [
        {"choices": [{"text": _FIRST, "finish_reason": None}]},
        {"choices": [{"text": _SECOND, "finish_reason": "stop"}]},
    ],
)
_whole(
    "llama.cpp",
    "native",
    "plain",
    {
        "index": 0,
        "content": TEXT,
        "tokens": [],
        "id_slot": 0,
        "stop": True,
        "model": "m",
        "stop_type": "eos",
        "stopping_word": "",
        "tokens_predicted": 8,
        "tokens_evaluated": 12,
        "truncated": False,
        "timings": _TIMINGS,
    },
)

_VLLM = {
    "stop_reason": None,
    "token_ids": None,
}
_VLLM_MESSAGE = {
    "role": "assistant",
    "reasoning_content": None,
    "content": TEXT,
    "tool_calls": [],
    "function_call": None,
    "audio": None,
}
_whole(
    "vllm",
    "chat",
    "chat",
    _chat(
        _choice(message=_VLLM_MESSAGE, **_VLLM),
        usage={
            "prompt_tokens": 5,
            "total_tokens": 13,
            "completion_tokens": 8,
            "prompt_tokens_details": None,
        },
        service_tier=None,
        prompt_logprobs=None,
        kv_transfer_params=None,
    ),
)
_whole(
    "vllm",
    "stopped at a token",
    "chat",
    _chat(_choice(stop_reason=128009), usage={"prompt_tokens": 5, "completion_tokens": 8}),
)
_stream(
    "vllm",
    "chat",
    "chat",
    [
        {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "m",
            "choices": choices,
            **more,
        }
        for choices, more in [
            ([_delta({"role": "assistant", "content": ""})], {"prompt_token_ids": None}),
            ([_delta({"content": TEXT}, token_ids=None)], {}),
            ([_delta({"content": ""}, "stop", stop_reason=None)], {}),
            ([], {"usage": {"prompt_tokens": 5, "total_tokens": 13, "completion_tokens": 8}}),
        ]
    ],
)
_whole("together", "eos", "chat", _chat(_choice(reason="eos", seed=1), prompt=[]))
_stream(
    "together",
    "eos",
    "chat",
    [
        _chunk({**_delta({"token_id": 9906, "content": TEXT}), "text": TEXT, "seed": None}),
        _chunk(
            {**_delta({"token_id": 2, "content": ""}, "eos"), "text": "", "seed": 1}, usage=USAGE
        ),
    ],
)

_OLLAMA = {
    "model": "llama3.2",
    "system_fingerprint": "fp_ollama",
    "usage": {"prompt_tokens": 26, "completion_tokens": 8, "total_tokens": 34},
}
_whole("ollama", "chat", "chat", _without(_chat(**_OLLAMA), "service_tier"))
_stream(
    "ollama",
    "chat",
    "chat",
    [
        _without(chunk, "service_tier", "usage")
        for chunk in [
            _chunk(_delta({"role": "assistant", "content": _FIRST})),
            _chunk(_delta({"role": "assistant", "content": _SECOND})),
            _chunk(_delta({"role": "assistant", "content": ""}, "stop")),
        ]
    ],
)


def _ollama(text: str, *, done: bool, **more: Any) -> dict[str, Any]:
    return {
        "model": "llama3.2",
        "created_at": "2023-08-04T19:22:45.499127Z",
        "message": {"role": "assistant", "content": text},
        "done": done,
        **more,
    }


_OLLAMA_END = {
    "done_reason": "stop",
    "total_duration": 4883583458,
    "load_duration": 1334875,
    "prompt_eval_count": 26,
    "prompt_eval_duration": 342546000,
    "eval_count": 282,
    "eval_duration": 4535599000,
}
_whole("ollama", "native", "plain", _ollama(TEXT, done=True, **_OLLAMA_END))
_stream(
    "ollama",
    "native",
    "plain",
    [
        _ollama(_FIRST, done=False),
        _ollama(_SECOND, done=False),
        _ollama("", done=True, **_OLLAMA_END),
    ],
)
_stream(
    "ollama", "native broken off", "plain", [_ollama(TEXT, done=False)], whole=False, kept=False
)

_OPENROUTER = {"provider": "DeepInfra", "model": "deepseek/deepseek-r1"}
_whole(
    "openrouter",
    "chat",
    "chat",
    _chat(
        _choice(
            native_finish_reason="stop",
            message={
                "reasoning": "Let me think.",
                "reasoning_details": [
                    {"type": "reasoning.text", "text": "Let me think.", "format": "unknown"}
                ],
            },
        ),
        usage={**USAGE, "cost": 0.00014, "is_byok": False, "cost_details": {"upstream": None}},
        **_OPENROUTER,
    ),
)
_openrouter_chunks = [
    _without(
        _chunk({**chunk["choices"][0], "native_finish_reason": None}, **_OPENROUTER),
        "system_fingerprint",
    )
    for chunk in _chunks()
]
_stream(
    "openrouter",
    "chat",
    "chat",
    [
        ": OPENROUTER PROCESSING\n\n",
        ": OPENROUTER PROCESSING\n\n",
        *_openrouter_chunks[:2],
        ": OPENROUTER PROCESSING\n\n",
        *_openrouter_chunks[2:],
        _chunk(_delta({"role": "assistant", "content": ""}), usage=USAGE, **_OPENROUTER),
    ],
)

_BLOCKS = [
    {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}], "closed": True},
    {"type": "text", "text": TEXT},
]
_whole(
    "mistral",
    "blocks",
    "chat",
    _chat(
        _choice(message={"content": _BLOCKS, "tool_calls": None, "prefix": False}),
        usage={"prompt_tokens": 16, "total_tokens": 50, "completion_tokens": 34},
    ),
)
_stream(
    "mistral",
    "blocks",
    "chat",
    [
        _chunk(_delta({"role": "assistant", "content": ""})),
        _chunk(_delta({"content": _BLOCKS[:1]})),
        _chunk(_delta({"content": [{"type": "text", "text": _FIRST}]})),
        _chunk(_delta({"content": _SECOND}, "stop"), usage=USAGE, p="abc"),
    ],
)
_whole("mistral", "cut", "chat", _chat(_choice(reason="model_length")), kept=False)
_whole(
    "deepseek",
    "chat",
    "chat",
    _chat(
        _choice(message={"reasoning_content": "Hm."}),
        usage={**USAGE, "prompt_cache_hit_tokens": 0, "prompt_cache_miss_tokens": 19},
    ),
)
_stream(
    "deepseek",
    "chat",
    "chat",
    [
        _chunk(_delta({"role": "assistant", "content": None, "reasoning_content": "Hm."})),
        _chunk(_delta({"content": TEXT, "reasoning_content": None})),
        _chunk(_delta({"content": "", "reasoning_content": None}, "stop"), usage=USAGE),
    ],
)

# ------------------------------------------------------------- what some servers leave out

_whole("other", "no id", "chat", _without(_chat(), "id"))
_whole("other", "no object", "chat", _without(_chat(), "object", "created"))
_whole("other", "no index", "chat", _chat(_without(_choice(), "index")))
_whole("other", "no total_tokens", "chat", _chat(usage=_without(USAGE, "total_tokens")))
_whole("other", "usage null", "chat", _chat(usage=None))
_whole("other", "no role", "chat", _chat(_choice(message={"role": None})))
_whole("other", "finish_reason null", "chat", _chat(_choice(reason=None)), whole=False, kept=False)
_whole(
    "other",
    "no finish_reason",
    "chat",
    _chat(_without(_choice(), "finish_reason")),
    whole=False,
    kept=False,
)
_whole("other", "finish_reason STOP", "chat", _chat(_choice(reason="STOP")))
_whole("other", "finish_reason unknown", "chat", _chat(_choice(reason="meditating")), kept=False)
_whole("other", "finish_reason empty", "chat", _chat(_choice(reason="")), whole=False, kept=False)
_whole("other", "created with a fraction", "chat", _chat(created=1741569952.25))
_whole("other", "numbers as text", "chat", _chat(created="now", usage={"prompt_tokens": "3"}))
_whole("other", "an id that is a number", "chat", _chat(id=17))
_whole(
    "other",
    "extra fields of any name",
    "chat",
    _chat(_debug={"a": [1, None]}, copy="x", model_config=1, schema=2, **{"with-dash": 3}),
)
_whole("other", "a number of 20 digits", "chat", _chat(seed=2**64 + 1))
_stream("other", "no id", "chat", [_without(chunk, "id", "created") for chunk in _chunks()])
_stream(
    "other",
    "no index",
    "chat",
    [_chunk(_without(chunk["choices"][0], "index")) for chunk in _chunks()],
)
_stream(
    "other",
    "no finish_reason until the end",
    "chat",
    [
        _chunk({"index": 0, "delta": {"content": TEXT}}),
        _chunk({"index": 0, "delta": {}, "finish_reason": "stop"}),
    ],
)
_stream("other", "no total_tokens", "chat", [*_chunks(), _chunk(usage={"prompt_tokens": 3})])
_stream("other", "[DONE] without a reason", "chat", _chunks()[:-1], whole=False, kept=False)
_stream("other", "no [DONE]", "chat", _chunks(), done=False)
_stream(
    "other",
    "delta null",
    "chat",
    [_chunk(_delta({"content": TEXT})), _chunk({**_delta({}, "stop"), "delta": None})],
)
_stream("other", "finish_reason unknown", "chat", _chunks(reason="meditating"), kept=False)

# --------------------------------------------------------------------------------- Anthropic

_COUNTS = {
    "input_tokens": 10,
    "cache_creation_input_tokens": 5,
    "cache_read_input_tokens": 4,
    "cache_creation": {"ephemeral_5m_input_tokens": 5, "ephemeral_1h_input_tokens": 0},
    "output_tokens": 10,
    "service_tier": "standard",
}
_TEXT_BLOCK = {"type": "text", "text": TEXT}
_THINKING = {"type": "thinking", "thinking": "Hm.", "signature": "EqQB"}
_REDACTED = {"type": "redacted_thinking", "data": "EmwK"}
_SEARCH = {
    "type": "server_tool_use",
    "id": "srvtoolu_1",
    "name": "web_search",
    "input": {"query": "q"},
    "caller": {"type": "direct"},
}
_FOUND = {
    "type": "web_search_tool_result",
    "tool_use_id": "srvtoolu_1",
    "content": [
        {
            "type": "web_search_result",
            "title": "T",
            "url": "https://example.com",
            "encrypted_content": "Eqg",
            "page_age": None,
        }
    ],
    "caller": {"type": "direct"},
}
_CITED = {
    **_TEXT_BLOCK,
    "citations": [
        {
            "type": "web_search_result_location",
            "cited_text": "c",
            "url": "https://example.com",
            "title": "T",
            "encrypted_index": "Eo8",
        }
    ],
}
_TOOL_USE = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Bern"}}
_DREAM = {"type": "dream", "images": [{"n": 1}], "text_of": "dream"}


def _message(*content: dict[str, Any], reason: Any = "end_turn", **more: Any) -> dict[str, Any]:
    return {
        "id": "msg_01XFDUDYJgAACzvnptvVoYEL",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5-20250929",
        "content": list(content) or [_TEXT_BLOCK],
        "stop_reason": reason,
        "stop_sequence": None,
        "usage": _COUNTS,
        **more,
    }


def _block(
    index: int, block: dict[str, Any], *deltas: dict[str, Any], stop: bool = True
) -> list[dict[str, Any]]:
    return [
        {"type": "content_block_start", "index": index, "content_block": block},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        *([{"type": "content_block_stop", "index": index}] if stop else []),
    ]


def _message_events(*blocks: list[dict[str, Any]], reason: str = "end_turn") -> list[Any]:
    return [
        {
            "type": "message_start",
            "message": {**_message(reason=None), "content": [], "usage": _COUNTS},
        },
        {"type": "ping"},
        *(event for block in blocks for event in block),
        {
            "type": "message_delta",
            "delta": {"stop_reason": reason, "stop_sequence": None},
            "usage": {"output_tokens": 15},
        },
        {"type": "message_stop"},
    ]


def _text_block(index: int = 0, text: str = TEXT) -> list[dict[str, Any]]:
    deltas = [{"type": "text_delta", "text": half} for half in _halves(text)]
    return _block(index, {"type": "text", "text": ""}, *deltas)


_THINKING_BLOCK = _block(
    0,
    {"type": "thinking", "thinking": "", "signature": ""},
    {"type": "thinking_delta", "thinking": "Hm."},
    {"type": "signature_delta", "signature": "EqQB"},
)

MESSAGE = _whole("anthropic", "message", "messages", _message())
MESSAGE_JSON = _whole(
    "anthropic", "json", "messages", _message({"type": "text", "text": JSON_TEXT}), text=JSON_TEXT
)
_whole("anthropic", "thinking", "messages", _message(_THINKING, _REDACTED, _TEXT_BLOCK))
_whole("anthropic", "server tool", "messages", _message(_SEARCH, _FOUND, _CITED))
_whole("anthropic", "a new block", "messages", _message(_DREAM, _TEXT_BLOCK))
_whole(
    "anthropic",
    "tool",
    "messages",
    _message({"type": "text", "text": "Wait."}, _TOOL_USE, reason="tool_use"),
    text="Wait.",
    kept=False,
)
_whole("anthropic", "cut", "messages", _message(reason="max_tokens"), kept=False)
_whole("anthropic", "paused", "messages", _message(reason="pause_turn"), kept=False)
_whole("anthropic", "a new reason", "messages", _message(reason="meditating"), kept=False)
_whole(
    "anthropic",
    "without fields",
    "messages",
    _without(_message(usage={"input_tokens": 3}), "id", "stop_sequence"),
)
_whole(
    "anthropic",
    "stop sequence",
    "messages",
    _message(reason="stop_sequence", stop_sequence="\n\nHuman:"),
)
MESSAGE_STREAM = _stream("anthropic", "message", "messages", _message_events(_text_block()))
MESSAGE_JSON_STREAM = _stream(
    "anthropic",
    "json",
    "messages",
    _message_events(_text_block(text=JSON_TEXT)),
    text=JSON_TEXT,
)
MESSAGE_THINKING_STREAM = _stream(
    "anthropic",
    "thinking",
    "messages",
    _message_events(_THINKING_BLOCK, _block(1, _REDACTED), _text_block(2)),
)
_stream(
    "anthropic",
    "server tool",
    "messages",
    _message_events(
        _block(
            0, {**_SEARCH, "input": {}}, {"type": "input_json_delta", "partial_json": '{"query":1}'}
        ),
        _block(1, _FOUND),
        _block(
            2,
            {"type": "text", "text": "", "citations": []},
            {"type": "citations_delta", "citation": _CITED["citations"][0]},  # type: ignore[index]
            {"type": "text_delta", "text": TEXT},
        ),
    ),
)
_stream(
    "anthropic",
    "a new block",
    "messages",
    _message_events(_block(0, _DREAM, {"type": "dream_delta", "image": {"n": 2}}), _text_block(1)),
)
MESSAGE_TOOL_STREAM = _stream(
    "anthropic",
    "tool",
    "messages",
    _message_events(
        _block(
            0,
            {**_TOOL_USE, "input": {}},
            {"type": "input_json_delta", "partial_json": ""},
            {"type": "input_json_delta", "partial_json": '{"city": "Bern"}'},
        ),
        reason="tool_use",
    ),
    text="",
    kept=False,
)
_stream(
    "anthropic",
    "broken off",
    "messages",
    _message_events(_text_block())[:-1],
    whole=False,
    kept=False,
)
_stream(
    "anthropic",
    "cut",
    "messages",
    _message_events(_text_block(), reason="max_tokens"),
    kept=False,
)

# ------------------------------------------------------------------------------------ Gemini

_GEMINI_USAGE = {
    "promptTokenCount": 4,
    "candidatesTokenCount": 10,
    "totalTokenCount": 14,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 4}],
    "thoughtsTokenCount": 2,
}


def _candidate(*parts: dict[str, Any], reason: str | None = "STOP", **more: Any) -> dict[str, Any]:
    content = {"parts": list(parts) or [{"text": TEXT}], "role": "model"}
    ending = {} if reason is None else {"finishReason": reason}
    return {"content": content, **ending, "index": 0, **more}


def _generated(*candidates: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "candidates": list(candidates),
        "usageMetadata": _GEMINI_USAGE,
        "modelVersion": "gemini-2.5-flash",
        "responseId": "mAitaLmkHPPlz7IPvtfUqQ4",
        **more,
    }


_FUNCTION_CALL = {"functionCall": {"name": "weather", "args": {"city": "Bern"}}}

GENERATED = _whole(
    "gemini", "answer", "generate", _generated(_candidate(avgLogprobs=-0.1, safetyRatings=[]))
)
GENERATED_JSON = _whole(
    "gemini", "json", "generate", _generated(_candidate({"text": JSON_TEXT})), text=JSON_TEXT
)
_whole(
    "gemini",
    "thoughts",
    "generate",
    _generated(
        _candidate(
            {"text": "Hm.", "thought": True}, {"text": TEXT, "thoughtSignature": "Cg4BVKhc7vI="}
        )
    ),
)
_whole(
    "gemini",
    "searched",
    "generate",
    _generated(
        _candidate(
            groundingMetadata={
                "webSearchQueries": ["q"],
                "groundingChunks": [{"web": {"uri": "https://example.com", "title": "T"}}],
                "groundingSupports": [
                    {
                        "segment": {"startIndex": 0, "endIndex": 5, "text": "Hello"},
                        "groundingChunkIndices": [0],
                    }
                ],
            },
            citationMetadata={"citations": [{"startIndex": 0, "uri": "https://example.com"}]},
        )
    ),
)
_whole(
    "gemini",
    "an image",
    "generate",
    _generated(
        _candidate({"text": TEXT}, {"inlineData": {"mimeType": "image/png", "data": "+/8="}})
    ),
)
_whole("gemini", "new fields", "generate", _generated(_candidate(dream={"n": 1}), newThing=[1, 2]))
_whole("gemini", "tool", "generate", _generated(_candidate(_FUNCTION_CALL)), text="", kept=False)
_whole("gemini", "cut", "generate", _generated(_candidate(reason="MAX_TOKENS")), kept=False)
_whole("gemini", "a new reason", "generate", _generated(_candidate(reason="DREAMT")), kept=False)
_whole(
    "gemini",
    "blocked",
    "generate",
    _without(_generated(promptFeedback={"blockReason": "SAFETY"}), "candidates"),
    text="",
    kept=False,
)
_whole(
    "gemini",
    "without fields",
    "generate",
    {"candidates": [{"content": {"parts": [{"text": TEXT}]}, "finishReason": "STOP"}]},
)
GENERATED_STREAM = _stream(
    "gemini",
    "answer",
    "generate",
    [
        _generated(_candidate({"text": _FIRST}, reason=None)),
        _generated(_candidate({"text": _SECOND}, reason=None)),
        _generated(_candidate({"text": "", "thoughtSignature": "Cg4BVKhc7vI="})),
    ],
)
_stream(
    "gemini",
    "tool",
    "generate",
    [_generated(_candidate(_FUNCTION_CALL, reason=None)), _generated(_candidate({"text": ""}))],
    text="",
    kept=False,
)
_stream(
    "gemini",
    "broken off",
    "generate",
    [_generated(_candidate({"text": TEXT}, reason=None))],
    whole=False,
    kept=False,
)
