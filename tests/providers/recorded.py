"""Answers and streams in the providers' wire formats, as documented in their references."""

from __future__ import annotations

from typing import Any

OPENAI: dict[str, Any] = {
    "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
    "object": "chat.completion",
    "created": 1741569952,
    "model": "gpt-4o-mini-2024-07-18",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "Hello! How can I assist you today?",
                "refusal": None,
                "annotations": [],
            },
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {
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
    },
    "service_tier": "default",
}

OPENAI_TOOLS: dict[str, Any] = {
    **OPENAI,
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "call_abc",
                        "type": "function",
                        "function": {"name": "weather", "arguments": '{"city": "Bern"}'},
                    }
                ],
            },
            "logprobs": None,
            "finish_reason": "tool_calls",
        }
    ],
}


def _openai_chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {
        "id": "chatcmpl-123",
        "object": "chat.completion.chunk",
        "created": 1694268190,
        "model": "gpt-4o-mini",
        "system_fingerprint": "fp_44709d6fcb",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}],
    }


OPENAI_STREAM: list[dict[str, Any]] = [
    _openai_chunk({"role": "assistant", "content": ""}),
    _openai_chunk({"content": "Hello! How can I "}),
    _openai_chunk({"content": "assist you today?"}),
    _openai_chunk({}, "stop"),
    {**_openai_chunk({}), "choices": [], "usage": OPENAI["usage"]},
]
OPENAI_TOOL_STREAM: list[dict[str, Any]] = [
    _openai_chunk(
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "index": 0,
                    "id": "call_abc",
                    "type": "function",
                    "function": {"name": "weather", "arguments": ""},
                }
            ],
        }
    ),
    _openai_chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"city": '}}]}),
    _openai_chunk({"tool_calls": [{"index": 0, "function": {"arguments": '"Bern"}'}}]}),
    _openai_chunk({}, "tool_calls"),
]

ANTHROPIC: dict[str, Any] = {
    "id": "msg_01XFDUDYJgAACzvnptvVoYEL",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5-20250929",
    "content": [{"type": "text", "text": "Hello! How can I assist you today?"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 10,
        "cache_creation_input_tokens": 5,
        "cache_read_input_tokens": 4,
        "output_tokens": 10,
    },
}
ANTHROPIC_TOOLS: dict[str, Any] = {
    **ANTHROPIC,
    "content": [
        {"type": "text", "text": "Let me see."},
        {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Bern"}},
    ],
    "stop_reason": "tool_use",
}
ANTHROPIC_STREAM: list[dict[str, Any]] = [
    {
        "type": "message_start",
        "message": {
            **ANTHROPIC,
            "content": [],
            "stop_reason": None,
            "usage": {**ANTHROPIC["usage"], "output_tokens": 1},
        },
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "ping"},
    {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": "Hello! How can I "},
    },
    {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": "assist you today?"},
    },
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 10},
    },
    {"type": "message_stop"},
]
ANTHROPIC_TOOL_STREAM: list[dict[str, Any]] = [
    ANTHROPIC_STREAM[0],
    {
        "type": "content_block_start",
        "index": 0,
        "content_block": {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}},
    },
    {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "input_json_delta", "partial_json": '{"city": '},
    },
    {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "input_json_delta", "partial_json": '"Bern"}'},
    },
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": {"output_tokens": 10},
    },
    {"type": "message_stop"},
]

GEMINI: dict[str, Any] = {
    "candidates": [
        {
            "content": {
                "parts": [{"text": "Hello! How can I assist you today?"}],
                "role": "model",
            },
            "finishReason": "STOP",
            "index": 0,
        }
    ],
    "usageMetadata": {
        "promptTokenCount": 19,
        "candidatesTokenCount": 7,
        "thoughtsTokenCount": 3,
        "cachedContentTokenCount": 4,
        "totalTokenCount": 29,
    },
    "modelVersion": "gemini-2.5-flash",
    "responseId": "abc",
}
GEMINI_TOOLS: dict[str, Any] = {
    **GEMINI,
    "candidates": [
        {
            "content": {
                "parts": [{"functionCall": {"name": "weather", "args": {"city": "Bern"}}}],
                "role": "model",
            },
            "finishReason": "STOP",
            "index": 0,
        }
    ],
}
GEMINI_BLOCKED: dict[str, Any] = {
    "promptFeedback": {"blockReason": "SAFETY"},
    "usageMetadata": {"promptTokenCount": 19, "totalTokenCount": 19},
    "modelVersion": "gemini-2.5-flash",
}


def _gemini_chunk(text: str, **more: Any) -> dict[str, Any]:
    candidate = {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0, **more}
    return {"candidates": [candidate], "modelVersion": "gemini-2.5-flash"}


GEMINI_STREAM: list[dict[str, Any]] = [
    _gemini_chunk("Hello! How can I "),
    {
        **_gemini_chunk("assist you today?", finishReason="STOP"),
        "usageMetadata": GEMINI["usageMetadata"],
    },
]
GEMINI_TOOL_STREAM: list[dict[str, Any]] = [GEMINI_TOOLS]
