"""Converts a decorated function's values to completions and back.

A string is stored as text, a JSON value as it is, and any other value as tagged JSON (see
`tagged_json`), which keeps types, the fields that are set, and private attributes. A type that has
no such form, such as a class defined in a function, is converted by pydantic if the function is
annotated with it. A value is stored only if it comes back unchanged.

Answers in OpenAI's or Anthropic's format, whether SDK objects or plain dicts, are parsed for their
text, finish reason, usage and model.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import AsyncIterator, Awaitable, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from functools import cached_property, lru_cache
from typing import Any, cast

from semcache.engine import tagged_json, tagged_objects
from semcache.engine.call_options import WithoutReturn
from semcache.providers.event_text import may_be_events
from semcache.types import Chunk, Completion

_PLAIN = (str, bool, int, float, type(None), object)


class ValueCodec(WithoutReturn):
    """Codec of the values of one function.

    Args:
        annotation: the function's return type, or `Any`.
    """

    def __init__(self, annotation: Any = Any) -> None:
        self._annotation = annotation
        self.tells_source = annotation is Completion

    @cached_property
    def _adapter(self) -> Any:
        """pydantic's adapter for the annotation; None if pydantic cannot or need not handle it."""
        if self._annotation is Any or self._annotation in _PLAIN:
            return None
        from pydantic import TypeAdapter
        from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError

        try:
            return TypeAdapter(self._annotation)
        except (PydanticUserError, PydanticUndefinedAnnotation):
            return None

    def keep(self, chunk: Any) -> Any:
        """A single value has no chunks."""
        return chunk

    def load_chunk(self, kept: Any) -> Any:
        return kept

    def dump(self, value: Any) -> Completion:
        """Raises `TypeError` for a value that would not come back unchanged."""
        if type(value) is str and self._keeps_text(value):
            return Completion(value)
        if self._annotation is Completion and isinstance(value, Completion):
            return value
        payload, kind = self.dump_payload(value)
        if kind == "text":
            return Completion(payload)
        return details(tagged_json.plain(payload) if kind == "tagged" else payload, payload, kind)

    def load(self, completion: Completion) -> Any:
        """Raises `TypeError` or `ValueError` if what is stored is not a value of this type."""
        if self._annotation is Completion:
            return completion
        if completion.payload_kind is None:
            return self.load_payload(completion.text, "text")
        if completion.payload_kind == "chunks":
            return joined(completion.payload)
        return self.load_payload(completion.payload, completion.payload_kind)

    def dump_payload(self, value: Any) -> tuple[Any, str]:
        """(JSON, its kind), after a check that loading it gives an equal value."""
        if type(value) is str and self._keeps_text(value):
            return value, "text"
        if is_json(value):
            return deepcopy(value), "json"
        if isinstance(value, Awaitable):
            raise TypeError(
                f"a {type(value).__qualname__} can be awaited only once; to cache its result, make "
                "the function itself `async def`, and await it there"
            )
        if isinstance(value, Iterator | AsyncIterator):
            raise TypeError(
                f"a {type(value).__qualname__} can be read only once; to cache it, make the "
                "function itself a generator, or return a list"
            )
        try:
            return _tagged(value), "tagged"
        except TypeError:
            typed = self._typed(value)
            if typed is None:
                raise
            return typed, "typed"

    def _keeps_text(self, text: str) -> bool:
        """Whether text comes back as text, and not as the type that is annotated."""
        if self._annotation in (str, Any, object) or self._adapter is None:
            return True
        try:
            return _same(self.load_payload(text, "text"), text)
        except ValueError:
            return False

    def _typed(self, value: Any) -> Any:
        """The value as converted by the annotation; None if it would not come back unchanged."""
        if self._adapter is None:
            return None
        try:
            payload = self._adapter.dump_python(value, mode="json", by_alias=True, warnings=False)
            restored = self.load_payload(json.loads(json.dumps(payload, allow_nan=False)), "typed")
            return payload if _same(restored, value) else None
        except Exception:  # a type's own serializer or comparison may raise anything
            return None

    def load_payload(self, payload: Any, kind: str) -> Any:
        """The value of a payload of this kind."""
        if kind == "text":
            if self._annotation in (str, Any, object) or self._adapter is None:
                return payload
            return self._adapter.validate_python(payload)
        if kind == "tagged":
            return tagged_json.decode(payload)
        if kind == "typed":
            if self._adapter is None:
                raise TypeError("the stored value needs the return annotation it was stored with")
            return self._adapter.validate_python(payload)
        if kind == "json":
            return payload
        return _adapter_of(cast(Hashable, _class_of(kind))).validate_python(payload)


class ChunkCodec:
    """Codec of streams whose chunks are values of the annotated type."""

    tells_source = False

    def __init__(self, annotation: Any = Any, *, usage: bool | None = None) -> None:
        self._chunk = ValueCodec(annotation)
        self._usage = usage

    def keep(self, chunk: Any) -> tuple[Any, str]:
        """The chunk as JSON, with its kind."""
        return self._chunk.dump_payload(chunk)

    def load_chunk(self, kept: tuple[Any, str]) -> Any:
        payload, kind = kept
        return self._chunk.load_payload(deepcopy(payload) if kind == "json" else payload, kind)

    def keep_returned(self, value: Any) -> tuple[Any, str]:
        """What a generator returned, as JSON, with its kind."""
        payload, kind = self._chunk.dump_payload(value)
        return payload, _RETURNED + kind

    def dump(self, kept: Sequence[tuple[Any, str]]) -> Completion:
        """A completion of the whole stream, from its chunks."""
        if all(kind == "text" for _, kind in kept):
            payload: Any = [text for text, _ in kept]
            text = "".join(payload)
            whole = _read(payload) if may_be_events(payload) else Completion(text)
            return dataclasses.replace(whole, text=text, payload=payload, payload_kind="chunks")
        payload = [{"kind": kind, "value": value} for value, kind in kept]
        plain = [
            _plain_chunk(value, kind) for value, kind in kept if not kind.startswith(_RETURNED)
        ]
        whole = _read(plain)
        return dataclasses.replace(whole, payload=payload, payload_kind="chunks")

    def load(self, completion: Completion) -> Chunks:
        chunks = self._loaded(completion)
        return chunks if self._usage is None else with_usage(chunks, wanted=self._usage)

    def _loaded(self, completion: Completion) -> Chunks:
        if completion.payload_kind is None:
            return Chunks([self._chunk.load_payload(completion.text, "text")])
        if completion.payload_kind != "chunks":
            return Chunks(split(completion.payload, completion.payload_kind))
        chunks = Chunks()
        for chunk in completion.payload:
            if isinstance(chunk, str):
                chunks.append(self._chunk.load_payload(chunk, "text"))
            elif chunk["kind"].startswith(_RETURNED):
                kind = chunk["kind"].removeprefix(_RETURNED)
                chunks.returned = self._chunk.load_payload(chunk["value"], kind)
            else:
                chunks.append(self._chunk.load_payload(chunk["value"], chunk["kind"]))
        return chunks


def _read(chunks: Sequence[Any]) -> Completion:
    from semcache.providers.reading import read_stream  # here: see `details`

    return read_stream(chunks)


def _plain_chunk(value: Any, kind: str) -> Any:
    """The content of a chunk without type tags, for `read_stream`."""
    if kind != "tagged":
        return value
    if isinstance(value, dict) and value.get("$") == "bytes":
        return tagged_json.decode(value)
    return tagged_json.plain(value)


_RETURNED = "returned:"
"""Prefix of the kind of a value that the generator returned rather than yielded."""


class Chunks(list[Any]):
    """The chunks of a stored stream, with what its generator returned."""

    returned: Any = None


def with_usage(chunks: Chunks, *, wanted: bool) -> Chunks:
    """A stream in OpenAI's chat format, with or without its usage chunk, as the call asks.

    Raises:
        OtherShapeError: the usage is wanted, but the stored stream has none.
    """
    choices = [_field(chunk, "choices") for chunk in chunks]
    if not chunks or any(choice is None for choice in choices):
        return chunks
    of_usage = [
        c == [] and _field(chunk, "usage") is not None
        for c, chunk in zip(choices, chunks, strict=True)
    ]
    if wanted and not any(of_usage):
        raise OtherShapeError("the stored stream has no usage")
    return chunks if wanted else Chunks(c for c, u in zip(chunks, of_usage, strict=True) if not u)


def _field(chunk: Any, name: str) -> Any:
    return chunk.get(name) if isinstance(chunk, Mapping) else getattr(chunk, name, None)


class AnswerChunks(WithoutReturn):
    """Codec of a router's streams, whose last chunk holds the whole answer."""

    tells_source = True

    def keep(self, chunk: Chunk) -> Chunk:
        return chunk

    def load_chunk(self, kept: Chunk) -> Chunk:
        return kept

    def dump(self, value: Sequence[Chunk]) -> Completion:
        """Raises `TypeError` if no chunk holds the whole answer."""
        whole = next((c.completion for c in reversed(value) if c.completion is not None), None)
        if whole is None:
            raise TypeError("the stream ended without a whole answer")
        texts = [chunk.text for chunk in value if chunk.text]
        return dataclasses.replace(whole, payload=texts, payload_kind="chunks")

    def load(self, completion: Completion) -> list[Chunk]:
        texts = completion.payload if completion.payload_kind == "chunks" else None
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            texts = [completion.text] if completion.text else []
        whole = dataclasses.replace(completion, payload=None, payload_kind=None)
        return [*map(Chunk, texts), Chunk("", whole)]


def is_json(value: Any) -> bool:
    """Whether a value comes back from JSON unchanged (so no tuples, and only string keys)."""
    if value is None or type(value) in (str, bool, int):
        return True
    if type(value) is float:
        return math.isfinite(value)
    if type(value) is list:
        return all(map(is_json, value))
    if type(value) is dict:
        return all(type(key) is str and is_json(item) for key, item in value.items())
    return False


def _tagged(value: Any) -> Any:
    """A value as tagged JSON, after a check that it comes back unchanged."""
    tree = tagged_json.encode(value)
    restored = tagged_json.decode(json.loads(json.dumps(tree, allow_nan=False)))
    if type(restored) is not type(value) or tagged_json.encode(restored) != tree:
        raise TypeError(f"a {type(value).__qualname__} would not come back unchanged")
    return tree


def _same(one: Any, two: Any) -> bool:
    """Whether two values are equal, of the same type and, for models, have the same fields set."""
    if type(one) is not type(two):
        return False
    given: Any = getattr(one, "model_fields_set", None)
    return bool(one == two) and given == getattr(two, "model_fields_set", None)


@lru_cache(maxsize=256)
def _adapter_of(cls: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(cls)


def _class_of(kind: str) -> type:
    """The class of a value stored by version 0.1, which the program must have imported."""
    reference = kind.partition(":")[2]
    cls = tagged_objects.found(reference)
    is_model = isinstance(cls, type) and (
        hasattr(cls, "model_validate") or dataclasses.is_dataclass(cls)
    )
    if not is_model:
        raise TypeError(
            f"the stored value is a {reference.replace(':', '.')}, which this program has not "
            "imported; annotate the function's return type to have it restored"
        )
    return cls  # type: ignore[no-any-return]


# ------------------------------------------------------- whole answers and streams of them


class OtherShapeError(TypeError):
    """A stream is stored where a single value is wanted, or vice versa, and cannot be converted."""


def joined(chunks: Any) -> Any:
    """The single value that a stored stream amounts to.

    Raises:
        OtherShapeError: the chunks are neither text nor a stream in a provider's format, or lack
            the usage that a plain call's answer has.
    """
    from semcache.providers import conversions, sdk_objects

    if isinstance(chunks, list) and all(isinstance(chunk, str) for chunk in chunks):
        return "".join(chunks)
    try:
        kinds = {chunk["kind"] for chunk in chunks}
        plain = [tagged_json.plain(chunk["value"]) for chunk in chunks]
        whole = conversions.whole_of(plain) if kinds <= {"json", "tagged"} else None
        # A plain chat completion always has its usage; a stream has it only if the caller asked.
        if whole is not None and ("choices" not in whole or whole.get("usage") is not None):
            return whole if kinds == {"json"} else sdk_objects.sdk_object(whole)
    except (TypeError, ValueError, LookupError, AttributeError):
        pass
    raise OtherShapeError("a stream is stored for this request, not a single value")


def split(payload: Any, kind: str) -> list[Any]:
    """The stream that a stored single value amounts to.

    Raises:
        OtherShapeError: the value is neither text nor an answer in a provider's format.
    """
    from semcache.providers import conversions, sdk_objects

    if kind in ("json", "tagged"):
        plain = tagged_json.plain(payload)
        chunks = conversions.chunks_of(plain) if isinstance(plain, dict) else None
        with suppress(TypeError):
            if chunks is not None:
                return chunks if kind == "json" else list(map(sdk_objects.sdk_object, chunks))
    raise OtherShapeError("a single value is stored for this request, not a stream")


# ----------------------------------------------------------------- providers' formats


def details(source: Any, payload: Any, kind: str) -> Completion:
    """A completion with the details that an answer in a provider's format contains."""
    from semcache.providers.reading import read_value  # here: plain text does not need it

    parsed = read_value(source)
    completion = parsed or Completion(payload if isinstance(payload, str) else "")
    if kind == "text":
        return completion
    return dataclasses.replace(completion, payload=payload, payload_kind=kind)
