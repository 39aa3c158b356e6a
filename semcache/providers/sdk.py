"""`SDKProvider`: a client object of the `openai` or `anthropic` package as a provider."""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from semcache.errors import ConfigError, UnavailableError
from semcache.lifecycle import BACKGROUND_LOOP
from semcache.providers import anthropic, openai, openai_answers
from semcache.providers.answers import Delta, StreamedAnswer
from semcache.providers.functions import (
    as_chunks,
    completion_of,
    in_thread,
    plain,
    translating,
)
from semcache.types import Chunk, Completion, Request


class SDKProvider:
    """Uses a client of the `openai` or `anthropic` package, with its keys and settings.

    The client's own retries are switched off, since the router retries. An async client can
    be used either from one event loop or from blocking calls, for which it runs in a background
    loop. A blocking client can be used from both; async calls run it in threads.

    Args:
        client: an `OpenAI`, `AsyncOpenAI`, `Anthropic` or `AsyncAnthropic` object.
        name: the provider's name; None means the package's name.
        model, models, price_list: see `protocols.Named`; `models` and `price_list` default to
            those of `OpenAICompatible` or `Anthropic`.

    Raises:
        ConfigError: `client` is not one of these.
    """

    key_id = None

    def __init__(
        self,
        client: Any,
        *,
        name: str | None = None,
        model: str | None = None,
        models: Sequence[str] = (),
        price_list: str | None = None,
    ) -> None:
        package = type(client).__module__.split(".")[0]
        self._codec: openai.OpenAICompatible | anthropic.Anthropic
        if package == "openai":
            url = str(getattr(client, "base_url", openai.OPENAI_URL))
            self._codec = openai.OpenAICompatible(name=name or package, base_url=url, models=models)
        elif package == "anthropic":
            headers = dict(getattr(client, "default_headers", {}))
            self._codec = anthropic.Anthropic(
                name=name or package,
                models=models or ("claude-*",),
                version=str(headers.get("anthropic-version", anthropic.VERSION)),
            )
        else:
            raise ConfigError(
                f"{type(client).__name__} is not a client of the openai or anthropic package; "
                "wrap a function that uses it in a CallableProvider."
            )
        self.name = self._codec.name
        self.models = self._codec.models
        self.default_model = model or ""
        self.price_list = price_list or self._codec.price_list
        self._openai = package == "openai"
        self._client = client
        self._async = type(client).__name__.startswith("Async")

    def __repr__(self) -> str:
        return f"<SDKProvider {self.name}: {type(self._client).__name__}>"

    def call(self, request: Request, *, model: str, timeout: float | None) -> Completion:
        if self._async:
            return BACKGROUND_LOOP.run(self.acall(request, model=model, timeout=timeout), timeout)
        with translating(self.name):
            answer = self._create(timeout)(**self._arguments(request, model, stream=False))
        return completion_of(answer, self.name)

    async def acall(self, request: Request, *, model: str, timeout: float | None) -> Completion:
        if not self._async:
            return await in_thread(lambda: self.call(request, model=model, timeout=timeout))
        with translating(self.name):
            answer = await self._create(timeout)(**self._arguments(request, model, stream=False))
        return completion_of(answer, self.name)

    def stream(self, request: Request, *, model: str, timeout: float | None) -> Iterator[Chunk]:
        if self._async:  # the background loop can only hand over a whole answer
            yield from as_chunks(self.call(request, model=model, timeout=timeout))
            return
        answer = StreamedAnswer()
        with translating(self.name):
            events = self._create(timeout)(**self._arguments(request, model, stream=True))
            try:
                for event in events:
                    yield Chunk(self._add(answer, event))
            finally:
                events.close()
        yield Chunk("", self._finish(answer))

    async def astream(
        self, request: Request, *, model: str, timeout: float | None
    ) -> AsyncIterator[Chunk]:
        if not self._async:
            completion = await self.acall(request, model=model, timeout=timeout)
            for chunk in as_chunks(completion):
                yield chunk
            return
        answer = StreamedAnswer()
        with translating(self.name):
            events = await self._create(timeout)(**self._arguments(request, model, stream=True))
            try:
                async for event in events:
                    yield Chunk(self._add(answer, event))
            finally:
                await events.close()
        yield Chunk("", self._finish(answer))

    def _create(self, timeout: float | None) -> Any:
        options: dict[str, Any] = {"max_retries": 0}
        if timeout is not None:
            options["timeout"] = timeout
        client = self._client.with_options(**options)
        return client.chat.completions.create if self._openai else client.messages.create

    def _arguments(self, request: Request, model: str, *, stream: bool) -> dict[str, Any]:
        """The request body as arguments; fields unknown to the SDK go into `extra_body`."""
        body = json.loads(self._codec.build(request, model=model, stream=stream).content)
        resource = self._client.chat.completions if self._openai else self._client.messages
        known = inspect.signature(resource.create).parameters
        rest = {name: body.pop(name) for name in list(body) if name not in known}
        return {**body, "extra_body": rest} if rest else body

    def _add(self, answer: StreamedAnswer, event: Any) -> str:
        delta = self._delta(plain(event))
        answer.add(delta)
        return delta.text

    def _finish(self, answer: StreamedAnswer) -> Completion:
        if not answer.complete:
            raise UnavailableError(
                "its stream broke off before the end of the answer", provider=self.name
            )
        return answer.completion()

    def _delta(self, event: Mapping[str, Any]) -> Delta:
        return openai_answers.delta_of(event) if self._openai else anthropic.delta_of(event)
