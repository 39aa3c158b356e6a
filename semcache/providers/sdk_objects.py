"""Makes objects of the OpenAI and Anthropic packages from JSON, as the packages do.

A program that asks for such objects has imported the package; nothing is imported here.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

_CLASSES = {
    "chat.completion": "openai.types.chat:ChatCompletion",
    "chat.completion.chunk": "openai.types.chat:ChatCompletionChunk",
    "text_completion": "openai.types:Completion",
    "response": "openai.types.responses:Response",
    "response.created": "openai.types.responses:ResponseCreatedEvent",
    "response.in_progress": "openai.types.responses:ResponseInProgressEvent",
    "response.output_item.added": "openai.types.responses:ResponseOutputItemAddedEvent",
    "response.output_item.done": "openai.types.responses:ResponseOutputItemDoneEvent",
    "response.content_part.added": "openai.types.responses:ResponseContentPartAddedEvent",
    "response.content_part.done": "openai.types.responses:ResponseContentPartDoneEvent",
    "response.output_text.delta": "openai.types.responses:ResponseTextDeltaEvent",
    "response.output_text.done": "openai.types.responses:ResponseTextDoneEvent",
    "response.completed": "openai.types.responses:ResponseCompletedEvent",
    "message": "anthropic.types:Message",
    "message_start": "anthropic.types:RawMessageStartEvent",
    "content_block_start": "anthropic.types:RawContentBlockStartEvent",
    "content_block_delta": "anthropic.types:RawContentBlockDeltaEvent",
    "content_block_stop": "anthropic.types:RawContentBlockStopEvent",
    "message_delta": "anthropic.types:RawMessageDeltaEvent",
    "message_stop": "anthropic.types:RawMessageStopEvent",
}
"""Class of an answer, chunk or event, by its `object` or `type`."""


def sdk_object(value: Mapping[str, Any]) -> Any:
    """The SDK's object for an answer, a chunk or an event.

    Raises:
        TypeError: its kind is unknown, or the program has not imported the package.
    """
    kind = value.get("object") or value.get("type")
    module, _, name = _CLASSES.get(str(kind), "").partition(":")
    cls = getattr(sys.modules.get(module), name, None)
    if cls is None:
        raise TypeError(f"there is no class for a {kind!r} in this program")
    return cls.construct(**value)
