"""Two providers behind a cache; when the first fails, the second answers.

python examples/router_with_fallback.py

The providers here are functions. `semcache.providers` also has OpenAICompatible, Anthropic and
Gemini, which take an API key and go into the same list.
"""

from __future__ import annotations

import tempfile

import semcache
from semcache.providers import CallableProvider
from semcache.router import Retry, Route, Router, Target


def fast_but_down(prompt: str) -> str:
    raise semcache.UnavailableError("it is down", provider="fast")


def slow_but_sure(prompt: str) -> str:
    return f"An answer to {prompt!r}."


def main() -> None:
    router = Router(
        [
            CallableProvider(fast_but_down, name="fast", takes="prompt", model="small"),
            CallableProvider(slow_but_sure, name="sure", takes="prompt", model="large"),
        ],
        routes=[Route((Target("fast"), Target("sure")))],
        retry=Retry(attempts=1),
        deadline=10,
    )
    with (
        router,
        tempfile.TemporaryDirectory() as directory,
        semcache.SemanticCache(directory, router=router) as cache,
    ):
        answer = cache.answer("Where is my parcel?")
        print(answer, "· answered by", answer.provider)
        for attempt in answer.attempts:
            print(f"  {attempt.provider}: {attempt.result} {attempt.detail}")
        again = cache.answer("Where is my parcel?")
        print(again, "· served from the cache:", again.served_from)


if __name__ == "__main__":
    main()
