"""`CallableProvider`: a function as a provider."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal, TypeVar

from semcache.errors import ConfigError, RejectedError, UnavailableError
from semcache.lifecycle import BACKGROUND_LOOP
from semcache.providers.base import text_only
from semcache.providers.openai import OpenAICompatible
from semcache.providers.reading import read_answer, read_stream
from semcache.providers.sdk_errors import translate
from semcache.types import Chunk, Completion, Request

T = TypeVar("T")

Takes = Literal["request", "prompt", "messages"]


class CallableProvider:
    """A function as a provider: plain, async, generator or async generator.

    It may return text, a `Completion`, or an answer in a provider's form (a mapping, an
    SDK's object); a generator yields text, or events in a provider's form. Connection
    errors, timeouts and errors with an HTTP status (such as an SDK's) are failures of the
    provider, which lead to a retry or a fallback; other exceptions pass through.

    Args:
        function: called with one argument; see `takes`.
        name: the name that routes, limits and messages use.
        takes: the argument: "request" for a `Request` with its model filled in, "prompt" for
            the user's text (requests with anything else are rejected), or "messages" for a
            list in OpenAI's form.
        model, models, price_list: see `protocols.Named`.

    Raises:
        ConfigError: `function` is not callable, or `takes` is unknown.
    """

    key_id = None

    def __init__(
        self,
        function: Callable[[Any], Any],
        *,
        name: str,
        takes: Takes = "request",
        model: str | None = None,
        models: Sequence[str] = (),
        price_list: str | None = None,
    ) -> None:
        if not callable(function):
            raise ConfigError(f"{name}: {function!r} is not callable.")
        if takes not in ("request", "prompt", "messages"):
            raise ConfigError(
                f"{name}: takes is {takes!r}; it must be 'request', 'prompt' or 'messages'."
            )
        self.name = name
        self.default_model = model or ""
        self.models = tuple(models)
        self.price_list = price_list
        self._function = function
        self._takes = takes
        self._openai = OpenAICompatible(name=name)

    def __repr__(self) -> str:
        return f"<CallableProvider {self.name}: {getattr(self._function, '__qualname__', '?')}>"

    def call(self, request: Request, *, model: str, timeout: float | None) -> Completion:
        with translating(self.name):
            value = self._function(self._argument(request, model))
            if inspect.isawaitable(value):
                value = BACKGROUND_LOOP.run(_awaited(value), timeout)
            elif isinstance(value, AsyncIterator):
                value = BACKGROUND_LOOP.run(_collected(value), timeout)
            return self._completion(value)

    async def acall(self, request: Request, *, model: str, timeout: float | None) -> Completion:
        with translating(self.name):
            if not _is_async(self._function):
                return await in_thread(lambda: self.call(request, model=model, timeout=timeout))
            value = self._function(self._argument(request, model))
            if inspect.isawaitable(value):
                value = await value
            elif isinstance(value, AsyncIterator):
                value = await _collected(value)
            return self._completion(value)

    def stream(self, request: Request, *, model: str, timeout: float | None) -> Iterator[Chunk]:
        if not inspect.isgeneratorfunction(self._function):
            yield from as_chunks(self.call(request, model=model, timeout=timeout))
            return
        seen: list[Any] = []
        with translating(self.name):
            for value in self._function(self._argument(request, model)):
                seen.append(plain(value))
                yield Chunk(read_stream(seen[-1:]).text)
        yield Chunk("", read_stream(seen))

    async def astream(
        self, request: Request, *, model: str, timeout: float | None
    ) -> AsyncIterator[Chunk]:
        if not inspect.isasyncgenfunction(self._function):
            completion = await self.acall(request, model=model, timeout=timeout)
            for chunk in as_chunks(completion):
                yield chunk
            return
        seen: list[Any] = []
        with translating(self.name):
            async for value in self._function(self._argument(request, model)):
                seen.append(plain(value))
                yield Chunk(read_stream(seen[-1:]).text)
        yield Chunk("", read_stream(seen))

    def _argument(self, request: Request, model: str) -> Any:
        if self._takes == "request":
            return replace(request, model=model)
        if self._takes == "messages":
            return self._openai.messages(request)
        only = request.messages[0] if len(request.messages) == 1 else None
        prompt = text_only(only.parts) if only is not None and only.role == "user" else None
        if prompt is None:
            raise RejectedError(
                "its function takes only a prompt, but the request is a conversation or contains "
                "more than text (takes='request' or 'messages' passes everything)",
                provider=self.name,
            )
        return prompt

    def _completion(self, value: Any) -> Completion:
        if isinstance(value, list | Iterator):
            return read_stream([plain(chunk) for chunk in value])
        return completion_of(value, self.name)


@contextmanager
def translating(provider: str) -> Iterator[None]:
    """Raise a failure of the provider as a `ProviderError`."""
    try:
        yield
    except Exception as error:
        provider_error = translate(error, provider)
        if provider_error is None or provider_error is error:
            raise
        # Without the original as its cause: an SDK's error may contain the request's headers.
        raise provider_error from None


def as_chunks(completion: Completion) -> Iterator[Chunk]:
    """A whole answer as a stream of one piece."""
    if completion.text:
        yield Chunk(completion.text)
    yield Chunk("", completion)


def completion_of(value: Any, provider: str) -> Completion:
    """The return value of a function as a completion.

    Raises:
        UnavailableError: the value is not an answer.
    """
    if isinstance(value, Completion):
        return value
    if isinstance(value, str):
        return Completion(value)
    answer = plain(value)
    completion = read_answer(answer) if isinstance(answer, Mapping) else None
    if completion is None:
        raise UnavailableError(
            f"its function returned a {type(value).__name__}, which is not an answer (text, a "
            "semcache.Completion, or an answer in a provider's form)",
            provider=provider,
        )
    return completion


def plain(value: Any) -> Any:
    """An SDK's object as a mapping; any other value as it is."""
    if isinstance(value, str | Mapping | Completion):
        return value
    dump = getattr(value, "model_dump", None)
    return value if dump is None else dump(mode="json", warnings=False)


async def in_thread(work: Callable[[], T]) -> T:
    """Run blocking work in a thread."""
    return await asyncio.to_thread(work)


async def _awaited(value: Any) -> Any:
    return await value


async def _collected(values: AsyncIterator[Any]) -> list[Any]:
    return [value async for value in values]


def _is_async(function: Callable[..., Any]) -> bool:
    called = getattr(function, "__call__", function)  # noqa: B004 - for callable objects
    return any(
        test(f)
        for f in (function, called)
        for test in (inspect.iscoroutinefunction, inspect.isasyncgenfunction)
    )
