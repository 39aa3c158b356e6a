"""A model server that misbehaves as it is told, for tests of what that leads to.

A case is a name in the path (`/NAME/v1/...`) with a list of acts; each request to it plays
the next act, and the last act goes on. Plain asyncio, since a polite server cannot break
off in mid-answer.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

Act = Callable[["Exchange"], Awaitable[None]]


@dataclass
class Exchange:
    """One request, and the writer of its answer."""

    path: str
    headers: dict[str, str]
    body: bytes
    writer: asyncio.StreamWriter
    at: float = field(default_factory=time.monotonic)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def streamed(self) -> bool:
        return bool(self.json.get("stream"))

    async def send(
        self,
        status: int,
        body: bytes,
        *,
        kind: str = "application/json",
        headers: dict[str, str] | None = None,
        length: int | None = None,
    ) -> None:
        head = {
            "content-type": kind,
            "content-length": str(len(body) if length is None else length),
            **(headers or {}),
        }
        lines = [f"HTTP/1.1 {status} Status", *(f"{k}: {v}" for k, v in head.items()), "", ""]
        self.writer.write("\r\n".join(lines).encode() + body)
        await self.writer.drain()

    async def begin_stream(self) -> None:
        self.writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
        )
        await self.writer.drain()

    async def event(self, value: Any) -> None:
        data = value if isinstance(value, str) else json.dumps(value)
        self.writer.write(f"data: {data}\n\n".encode())
        await self.writer.drain()

    def reset(self) -> None:
        """Break the connection off without a goodbye."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


def completion(text: str = "Fine.", **more: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-mini",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
        **more,
    }


def chunk(text: str | None, reason: str | None = None, **more: Any) -> dict[str, Any]:
    delta = {} if text is None else {"content": text}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "gpt-4o-mini",
        "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
        **more,
    }


async def ok(exchange: Exchange) -> None:
    if not exchange.streamed:
        await exchange.send(200, json.dumps(completion()).encode())
        return
    await exchange.begin_stream()
    for piece in ("Fi", "ne."):
        await exchange.event(chunk(piece))
    await exchange.event(chunk(None, "stop"))
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    await exchange.event({**chunk(None), "choices": [], "usage": usage})
    await exchange.event("[DONE]")
    exchange.writer.close()


def status(code: int, message: str = "no", headers: dict[str, str] | None = None) -> Act:
    async def act(exchange: Exchange) -> None:
        error = {"error": {"message": message, "type": "some_error", "code": None}}
        await exchange.send(code, json.dumps(error).encode(), headers=headers)

    return act


def raw(body: bytes, kind: str = "application/json", length: int | None = None) -> Act:
    async def act(exchange: Exchange) -> None:
        await exchange.send(200, body, kind=kind, length=length)
        if length is not None:
            exchange.writer.close()

    return act


def events(*values: Any, reset: bool = False) -> Act:
    """A stream of these events, and then the end, or a reset."""

    async def act(exchange: Exchange) -> None:
        await exchange.begin_stream()
        for value in values:
            await exchange.event(value)
        if reset:
            await asyncio.sleep(0.05)
            exchange.reset()
        else:
            exchange.writer.close()

    return act


def slow_headers(seconds: float) -> Act:
    async def act(exchange: Exchange) -> None:
        await asyncio.sleep(seconds)
        await ok(exchange)

    return act


def slow_body(seconds: float, batched: int = 200) -> Act:
    """A body, or a stream, that dribbles for ever."""

    async def act(exchange: Exchange) -> None:
        if exchange.streamed:
            await exchange.begin_stream()
        else:
            await exchange.send(200, b"", length=1_000_000)
        for _ in range(batched):
            exchange.writer.write(b": wait\n\n" if exchange.streamed else b" ")
            await exchange.writer.drain()
            await asyncio.sleep(seconds)

    return act


async def reset(exchange: Exchange) -> None:
    exchange.reset()


class FaultServer:
    """See the head of the module."""

    def __init__(self) -> None:
        self.seen: dict[str, list[Exchange]] = {}
        self._acts: dict[str, list[Act]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        start = asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**22)
        self._server = asyncio.run_coroutine_threadsafe(start, self._loop).result()
        self.port = self._server.sockets[0].getsockname()[1]

    def case(self, name: str, acts: Sequence[Act]) -> str:
        """Set a case; return its base URL."""
        self._acts[name] = list(acts)
        self.seen[name] = []
        return f"http://127.0.0.1:{self.port}/{name}/v1"

    def close(self) -> None:
        async def stop() -> None:
            self._server.close()
            tasks = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                path = head[0].split()[1]
                headers = {
                    k.lower(): v for k, v in (line.split(": ", 1) for line in head[1:] if line)
                }
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                name = path.split("/")[1]
                seen = self.seen.setdefault(name, [])
                exchange = Exchange(path, headers, body, writer)
                seen.append(exchange)
                acts = self._acts[name]
                await acts[min(len(seen), len(acts)) - 1](exchange)
                if writer.is_closing():
                    return
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            writer.close()
