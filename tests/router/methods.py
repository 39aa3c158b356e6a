"""The four methods of the router, with one signature, for tests that cover all of them."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Any

from semcache.providers import OpenAICompatible
from semcache.router import Router, Timeouts
from semcache.router.resilience import Retry
from semcache.types import Completion

OPEN_ROUTERS: list[Router] = []
"""Routers to close when the test has ended."""
KEY = "sk-test-0123456789abcdef"


def provider(url: str, name: str = "openai", **options: Any) -> OpenAICompatible:
    return OpenAICompatible(
        **{"name": name, "base_url": url, "api_key": KEY, "model": "gpt-4o-mini", **options}
    )


def router(*providers: Any, **options: Any) -> Router:
    """A router with quick retries, short timeouts, and constant draws for reproducible runs."""
    made = Router(
        providers,
        **{
            "retry": Retry(attempts=3, base=0.01, cap=0.02, patience=1.0),
            "timeouts": Timeouts(connect=1.0, read=0.4),
            "deadline": 10.0,
            "draw": lambda: 0.5,
            "hooks": (),
            **options,
        },
    )
    OPEN_ROUTERS.append(made)
    return made


def complete(asked: Router, prompt: Any = "How are you?", **fields: Any) -> Completion:
    return asked.complete(prompt, **fields)


def acomplete(asked: Router, prompt: Any = "How are you?", **fields: Any) -> Completion:
    async def main() -> Completion:
        try:
            return await asked.acomplete(prompt, **fields)
        finally:
            await asked.aclose()

    return asyncio.run(main())


def stream(asked: Router, prompt: Any = "How are you?", **fields: Any) -> Completion:
    return _joined(list(asked.stream(prompt, **fields)))


def astream(asked: Router, prompt: Any = "How are you?", **fields: Any) -> Completion:
    async def main() -> list[Any]:
        try:
            return [chunk async for chunk in asked.astream(prompt, **fields)]
        finally:
            await asked.aclose()

    return _joined(asyncio.run(main()))


def _joined(chunks: list[Any]) -> Completion:
    whole = chunks[-1].completion
    assert whole is not None, "the last chunk has the completion"
    assert [c.completion for c in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert "".join(chunk.text for chunk in chunks) == whole.text
    return dataclasses.replace(whole)


METHODS: dict[str, Callable[..., Completion]] = {
    "complete": complete,
    "acomplete": acomplete,
    "stream": stream,
    "astream": astream,
}
WHOLE = {name: METHODS[name] for name in ("complete", "acomplete")}
STREAMED = {name: METHODS[name] for name in ("stream", "astream")}
