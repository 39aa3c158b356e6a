"""A whole answer and the stream that it would have been hold the same."""

from __future__ import annotations

import json
from typing import Any

import openai  # noqa: F401 - its classes must be loaded
import pytest

from semcache.providers.conversions import chunks_of, whole_of
from semcache.providers.reading import read_answer, read_stream
from semcache.providers.sdk_objects import sdk_object
from tests.clients.recorded import RECORDED, Recorded


def events(recorded: Recorded) -> list[dict[str, Any]]:
    """The JSON of the events of a recorded stream."""
    lines = [line[5:].strip() for line in recorded.body.split(b"\n") if line.startswith(b"data:")]
    return [json.loads(line) for line in lines if line and line != b"[DONE]"]


ANSWERS = [r for r in RECORDED if not r.streamed and r.kept]
STREAMS = [r for r in RECORDED if r.streamed and r.kept and b"data:" in r.body]


def name(recorded: Recorded) -> str:
    return f"{recorded.provider} {recorded.shape}"


@pytest.mark.parametrize("recorded", ANSWERS, ids=name)
def test_a_whole_answer_survives_the_way_there_and_back(recorded: Recorded) -> None:
    answer = json.loads(recorded.body)
    chunks = chunks_of(answer)
    if chunks is None:  # a format without streams, such as embeddings
        return
    before, after = read_answer(answer), read_stream(chunks)
    assert before is not None
    assert (after.text, after.finish_reason) == (before.text, before.finish_reason)
    assert after.tool_calls == before.tool_calls
    back = whole_of(chunks)
    assert back is not None
    again = read_answer(back)
    assert again is not None
    assert (again.text, again.finish_reason, again.usage) == (
        before.text,
        before.finish_reason,
        before.usage,
    )


@pytest.mark.parametrize("recorded", STREAMS, ids=name)
def test_a_stream_becomes_the_answer_that_it_amounts_to(recorded: Recorded) -> None:
    chunks = events(recorded)
    whole = whole_of(chunks)
    assert whole is not None
    before, after = read_stream(chunks), read_answer(whole)
    assert after is not None
    assert (after.text, after.finish_reason, after.usage) == (
        before.text,
        before.finish_reason,
        before.usage,
    )


def test_the_objects_are_those_of_the_sdk() -> None:
    chunk = sdk_object({"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {}}]})
    assert type(chunk).__name__ == "ChatCompletionChunk"
    assert type(chunk.choices[0]).__name__ == "Choice"
    with pytest.raises(TypeError, match="no class"):
        sdk_object({"object": "something else"})
