"""A model server that answers at once, or after so many milliseconds: the floor of a call.

python -m benchmarks.stub [--delay MS] [--port PORT]

prints its address. `GET /times` gives the arrival times of all requests so far (seconds).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ANSWER = json.dumps(
    {
        "id": "chatcmpl-stub",
        "object": "chat.completion",
        "created": 1,
        "model": "stub",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "A short answer, as models give."},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 12, "completion_tokens": 8, "total_tokens": 20},
    }
).encode()


def _http(body: bytes) -> bytes:
    kind = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
    return f"{kind}content-length: {len(body)}\r\n\r\n".encode() + body


class _Stub(asyncio.Protocol):
    times: list[float] = []  # noqa: RUF012 - of the whole server
    delay = 0.0

    def __init__(self) -> None:
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._buffer) < end + 4 + length:
                return
            self._buffer = self._buffer[end + 4 + length :]
            self._answer(head)

    def _answer(self, head: bytes) -> None:
        if head.startswith(b"get /times"):
            self._write(_http(json.dumps(self.times).encode()))
            return
        self.times.append(time.monotonic())
        if self.delay:
            asyncio.get_running_loop().call_later(self.delay, self._write, _http(_ANSWER))
        else:
            self._write(_http(_ANSWER))

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)


async def _serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Stub, "127.0.0.1", port, backlog=1024)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


@contextmanager
def stub(delay_ms: float = 0.0, port: int = 0) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """(the process, its address); stopped at the end."""
    args = ["-m", "benchmarks.stub", "--delay", str(delay_ms), "--port", str(port)]
    process = subprocess.Popen(
        [sys.executable, *args],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--delay", type=float, default=0.0, help="milliseconds")
    parser.add_argument("--port", type=int, default=0)
    args = parser.parse_args()
    _Stub.delay = args.delay / 1000
    asyncio.run(_serve(args.port))


if __name__ == "__main__":
    main()
