"""Converts answers in providers' formats between whole and streamed.

A whole answer becomes the chunks or events that its API would have sent, and vice versa. Values
are plain JSON; `sdk_objects` turns them into objects of the SDKs.

Sources: OpenAI API reference, "Chat streaming" and "Responses streaming"; Anthropic API reference,
"Streaming"; Gemini API reference, "Generating content"; Ollama API, "Chat".
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

from semcache.providers import anthropic, gemini
from semcache.providers import openai_answers as openai
from semcache.providers.answers import mapping, mappings

JSONObject = dict[str, Any]


def chunks_of(answer: Mapping[str, Any]) -> list[JSONObject] | None:
    """The stream that a whole answer would have been; None if its format is unknown."""
    if answer.get("object") == "chat.completion":
        return list(_chat_chunks(answer))
    if answer.get("object") == "text_completion" or gemini.is_chunk(answer):
        return [dict(answer)]
    if answer.get("object") == "response":
        return list(_response_events(answer))
    if anthropic.completion_of(answer) is not None:
        return list(_message_events(answer))
    return None


def whole_of(chunks: Sequence[Mapping[str, Any]]) -> JSONObject | None:
    """The whole answer from the chunks of a complete stream; None if its format is unknown."""
    if not chunks:
        return None
    first, last = chunks[0], chunks[-1]
    if str(last.get("type")) in ("response.completed", "response.incomplete"):
        return dict(mapping(last.get("response"))) or None
    if anthropic.is_event(first):
        return _message(chunks)
    if any(map(openai.is_chunk, chunks)) and all("choices" in chunk for chunk in chunks):
        return _chat_completion(chunks)
    if all(map(gemini.is_chunk, chunks)):
        return _gemini_answer(chunks)
    return None


# ---------------------------------------------------------------------------- OpenAI chat


def _chat_chunks(answer: Mapping[str, Any]) -> Iterator[JSONObject]:
    """For each choice, one chunk with its message and one with its end; then the usage."""
    head = {k: v for k, v in answer.items() if k not in ("choices", "usage", "object")}
    head["object"] = "chat.completion.chunk"
    for choice in mappings(answer.get("choices")):
        message = {k: v for k, v in mapping(choice.get("message")).items() if v is not None}
        if calls := mappings(message.get("tool_calls")):
            message["tool_calls"] = [{"index": i, **call} for i, call in enumerate(calls)]
        index = choice.get("index", 0)
        logprobs = {"logprobs": choice["logprobs"]} if choice.get("logprobs") else {}
        start = {"index": index, "delta": message, "finish_reason": None, **logprobs}
        yield {**head, "choices": [start]}
        rest = {
            k: v for k, v in choice.items() if k not in ("message", "logprobs") and v is not None
        }
        end = {**rest, "index": index, "delta": {}, "finish_reason": choice.get("finish_reason")}
        yield {**head, "choices": [end]}
    if answer.get("usage") is not None:
        yield {**head, "choices": [], "usage": answer["usage"]}


_PIECES = ("choices", "obfuscation")
"""Fields of a chunk that are not copied to the whole answer; choices are merged instead."""


def _chat_completion(chunks: Sequence[Mapping[str, Any]]) -> JSONObject:
    whole: JSONObject = {}
    choices: dict[int, JSONObject] = {}
    for chunk in chunks:
        whole.update({k: v for k, v in chunk.items() if k not in _PIECES and v not in (None, "")})
        for choice in mappings(chunk.get("choices")):
            index = choice.get("index") or 0
            _merge(choices.setdefault(index, {"index": index}), choice)
    says_text = all("text" in choice and "delta" not in choice for choice in choices.values())
    is_chat = whole.get("object") != "text_completion" and not (choices and says_text)
    whole["object"] = "chat.completion" if is_chat else "text_completion"
    whole["choices"] = [_choice(choice, is_chat=is_chat) for _, choice in sorted(choices.items())]
    return whole


def _choice(merged: JSONObject, *, is_chat: bool) -> JSONObject:
    if not is_chat:
        return merged
    said = {k: v for k, v in mapping(merged.pop("delta", None)).items() if v is not None}
    if "content" in said:
        merged.pop("text", None)  # some servers send each piece twice
    message = {"role": "assistant", "content": None, **said}
    message["tool_calls"] = [
        {k: v for k, v in call.items() if k != "index"}
        for call in mappings(message.get("tool_calls"))
    ]
    if not message["tool_calls"]:
        del message["tool_calls"]
    return {**merged, "message": message}


_APPENDED = frozenset(
    {
        "arguments",
        "content",
        "data",
        "name",
        "partial_json",
        "reasoning",
        "reasoning_content",
        "refusal",
        "signature",
        "summary",
        "text",
        "thinking",
        "transcript",
    }
)
"""Fields whose text arrives in pieces; in other fields, a later value replaces the earlier."""


def _merge(merged: JSONObject, delta: Mapping[str, Any]) -> None:
    """Merge a delta into the result of merging the earlier ones."""
    for name, value in delta.items():
        earlier = merged.get(name)
        if value is None and name in merged:
            continue
        if isinstance(value, str) and isinstance(earlier, str) and name in _APPENDED:
            merged[name] = earlier + value
        elif isinstance(value, Mapping) and isinstance(earlier, dict):
            _merge(earlier, value)
        elif isinstance(value, list) and isinstance(earlier, list):
            _merge_lists(earlier, value)
        elif name == "content" and earlier and value:  # some servers mix text and blocks
            merged[name] = [*_blocks(earlier), *_blocks(value)]
        else:
            merged[name] = deepcopy(value)


def _blocks(content: Any) -> list[Any]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


def _merge_lists(merged: list[Any], deltas: list[Any]) -> None:
    for delta in deltas:
        index = delta.get("index") if isinstance(delta, Mapping) else None
        same = [item for item in merged if index is not None and item.get("index") == index]
        if same:
            _merge(same[0], delta)
        else:
            merged.append(deepcopy(delta))


# ---------------------------------------------------------------------- Anthropic messages


def _message_events(answer: Mapping[str, Any]) -> Iterator[JSONObject]:
    usage = dict(mapping(answer.get("usage")))
    start = {**answer, "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
    yield {"type": "message_start", "message": start}
    for index, block in enumerate(mappings(answer.get("content"))):
        empty, deltas = _block_deltas(block)
        yield {"type": "content_block_start", "index": index, "content_block": empty}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    end = {"stop_reason": answer.get("stop_reason"), "stop_sequence": answer.get("stop_sequence")}
    yield {"type": "message_delta", "delta": end, "usage": usage}
    yield {"type": "message_stop"}


def _block_deltas(block: Mapping[str, Any]) -> tuple[JSONObject, list[JSONObject]]:
    """A block as it starts, and the deltas that complete it."""
    kind = block.get("type")
    if kind == "text":
        return {**block, "text": ""}, [{"type": "text_delta", "text": block.get("text", "")}]
    if kind in ("tool_use", "server_tool_use"):
        written = json.dumps(block.get("input"), ensure_ascii=False)
        return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": written}]
    if kind == "thinking":
        thought = {"type": "thinking_delta", "thinking": block.get("thinking", "")}
        signature = {"type": "signature_delta", "signature": block.get("signature", "")}
        return {**block, "thinking": "", "signature": ""}, [thought, signature]
    return dict(block), []


def _message(events: Sequence[Mapping[str, Any]]) -> JSONObject:
    message: JSONObject = {}
    blocks: dict[int, JSONObject] = {}
    inputs: dict[int, str] = {}
    for event in events:
        index = event.get("index") or 0
        delta = mapping(event.get("delta"))
        match event.get("type"):
            case "message_start":
                message = deepcopy(dict(mapping(event.get("message"))))
            case "content_block_start":
                blocks[index] = deepcopy(dict(mapping(event.get("content_block"))))
            case "content_block_delta" if delta.get("type") == "input_json_delta":
                inputs[index] = inputs.get(index, "") + str(delta.get("partial_json") or "")
            case "content_block_delta" if delta.get("type") == "citations_delta":
                block = blocks.setdefault(index, {"type": "text", "text": ""})
                block["citations"] = [*(block.get("citations") or []), delta.get("citation")]
            case "content_block_delta":
                added = {name: value for name, value in delta.items() if name != "type"}
                _merge(blocks.setdefault(index, {"type": "text", "text": ""}), added)
            case "message_delta":
                message.update(delta)
                usage = {k: v for k, v in mapping(event.get("usage")).items() if v is not None}
                message["usage"] = {**mapping(message.get("usage")), **usage}
    for index, text in inputs.items():
        if text and index in blocks:
            blocks[index]["input"] = json.loads(text)
    message["content"] = [block for _, block in sorted(blocks.items())]
    return message


# ------------------------------------------------------------------------ OpenAI responses


def _response_events(response: Mapping[str, Any]) -> Iterator[JSONObject]:
    begun = {**response, "status": "in_progress", "output": [], "usage": None}
    yield from (
        {"sequence_number": number, **event}
        for number, event in enumerate(
            [
                {"type": "response.created", "response": begun},
                {"type": "response.in_progress", "response": begun},
                *_item_events(mappings(response.get("output"))),
                {"type": f"response.{_end_of(response)}", "response": dict(response)},
            ]
        )
    )


def _end_of(response: Mapping[str, Any]) -> str:
    status = response.get("status")
    return status if status in ("incomplete", "failed") else "completed"


def _item_events(items: Sequence[Mapping[str, Any]]) -> Iterator[JSONObject]:
    for index, item in enumerate(items):
        at = {"output_index": index}
        parts = mappings(item.get("content")) if item.get("type") == "message" else []
        begun = {**item, "status": "in_progress", "content": []} if parts else dict(item)
        if item.get("type") == "function_call":
            begun = {**item, "status": "in_progress", "arguments": ""}
        yield {"type": "response.output_item.added", "item": begun, **at}
        for number, part in enumerate(parts):
            here = {"item_id": item.get("id"), "content_index": number, **at}
            text = part.get("text")
            empty = dict(part) if text is None else {**part, "text": ""}
            yield {"type": "response.content_part.added", "part": empty, **here}
            if text is not None:
                more: JSONObject = {"logprobs": [], **here}
                yield {"type": "response.output_text.delta", "delta": text, **more}
                yield {"type": "response.output_text.done", "text": text, **more}
            yield {"type": "response.content_part.done", "part": dict(part), **here}
        if item.get("type") == "function_call":
            arguments, here = str(item.get("arguments") or ""), {"item_id": item.get("id"), **at}
            kind = "response.function_call_arguments"
            yield {"type": f"{kind}.delta", "delta": arguments, **here}
            yield {"type": f"{kind}.done", "arguments": arguments, **here}
        yield {"type": "response.output_item.done", "item": dict(item), **at}


# -------------------------------------------------------------------------------- Gemini


def _gemini_answer(chunks: Sequence[Mapping[str, Any]]) -> JSONObject:
    """The latest value of each field, with the parts of all chunks; adjacent texts are joined."""
    whole = {name: value for chunk in chunks for name, value in deepcopy(dict(chunk)).items()}
    candidates: dict[int, JSONObject] = {}
    for chunk in chunks:
        for position, candidate in enumerate(mappings(chunk.get("candidates"))):
            index = candidate.get("index")
            merged = candidates.setdefault(index if isinstance(index, int) else position, {})
            content = mapping(candidate.get("content"))
            parts = [*mappings(mapping(merged.get("content")).get("parts"))]
            for part in mappings(content.get("parts")):
                _add_part(parts, part)
            merged.update({k: v for k, v in candidate.items() if v is not None})
            merged["content"] = {"role": "model", **content, "parts": parts}
    whole["candidates"] = [candidate for _, candidate in sorted(candidates.items())]
    return whole


def _add_part(parts: list[Any], part: Mapping[str, Any]) -> None:
    added = {name: value for name, value in part.items() if value is not None}
    if parts and added.keys() == {"text"} == parts[-1].keys():
        parts[-1] = {"text": parts[-1]["text"] + added["text"]}
    else:
        parts.append(added)
