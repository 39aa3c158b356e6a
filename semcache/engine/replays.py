"""Streams that are served from the cache, and stand-ins for the stream objects of the SDKs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from semcache.engine.stream_readers import diverted, resume


class _Replayed:
    """Takes the place of the stream object that an SDK returns.

    Args:
        chunks: an iterator over the chunks.
        source: the SDK's object, whose other attributes can be read; None for a stored stream.
    """

    def __init__(self, chunks: Any, source: Any = None) -> None:
        self._chunks = chunks
        self._source = source

    def __getattr__(self, name: str) -> Any:
        if self._source is not None and not name.startswith("_"):
            return getattr(self._source, name)
        if name == "response":  # which the SDKs' streaming helpers close
            return _NO_RESPONSE
        raise AttributeError(f"a stream that is served from the cache has no {name}")


class _NoResponse:
    """Stands for the HTTP response of a stream that is served from the cache."""

    status_code = 200
    headers: Mapping[str, str] = MappingProxyType({})

    def close(self) -> None:
        """There is no connection."""

    async def aclose(self) -> None:
        """There is no connection."""


_NO_RESPONSE = _NoResponse()


class Replay(Generator[Any, Any, Any]):
    """Replays the chunks of a stored stream, with all the methods of a generator.

    Args:
        chunks: the chunks; their attribute `returned`, if any, is the generator's return value.
        anew: opens a live stream by calling the function, for a caller who sends a value.
    """

    def __init__(self, chunks: list[Any], anew: Callable[[], Iterator[Any]]) -> None:
        self._chunks = chunks
        self._anew = anew
        self._rest = iter(chunks)
        self._position = 0
        self._own: Any = None

    def send(self, value: Any, /) -> Any:
        """Return the next chunk; the generator's `yield` evaluates to `value`."""
        if self._own is None and value is not None:
            self._own = diverted(self._anew, self._position)
        if self._own is not None:
            return resume(self._own, ("send", value), next)
        for chunk in self._rest:
            self._position += 1
            return chunk
        raise StopIteration(getattr(self._chunks, "returned", None))

    def throw(self, *error: Any) -> Any:
        """Raise an error in the live stream, if there is one; else the replay ends with it."""
        if self._own is not None:
            return self._own.throw(*error)
        self._rest = iter(())
        return super().throw(*error)

    def close(self) -> None:
        """Stop reading."""
        self._rest = iter(())
        if self._own is not None and (close := getattr(self._own, "close", None)) is not None:
            close()


class ReplayedStream(_Replayed):
    """A stream of a blocking client."""

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self._chunks)

    def __enter__(self) -> ReplayedStream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop reading."""
        self._chunks.close()


class AsyncReplay(AsyncGenerator[Any, Any]):
    """`Replay` for an async iterator."""

    def __init__(self, chunks: list[Any], anew: Callable[[], AsyncIterator[Any]]) -> None:
        self._anew = anew
        self._rest = iter(chunks)
        self._position = 0
        self._own: Any = None

    async def __anext__(self) -> Any:
        return await self.asend(None)

    async def asend(self, value: Any, /) -> Any:
        """Return the next chunk; the generator's `yield` evaluates to `value`."""
        if self._own is None and value is not None:
            from semcache.engine.async_shared_streams import adiverted

            self._own = await adiverted(self._anew, self._position)
        if self._own is not None:
            return await resume(self._own, ("asend", value), anext)
        for chunk in self._rest:
            self._position += 1
            return chunk
        raise StopAsyncIteration

    async def athrow(self, *error: Any) -> Any:
        """Raise an error in the live stream, if there is one; else the replay ends with it."""
        if self._own is not None:
            return await self._own.athrow(*error)
        self._rest = iter(())
        return await super().athrow(*error)

    async def aclose(self) -> None:
        """Stop reading."""
        self._rest = iter(())
        if self._own is not None and (close := getattr(self._own, "aclose", None)) is not None:
            await close()


class AsyncReplayedStream(_Replayed):
    """A stream of an async client."""

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        return await anext(self._chunks)

    async def __aenter__(self) -> AsyncReplayedStream:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop reading."""
        await self._chunks.aclose()
