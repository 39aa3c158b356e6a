"""HTTP clients: created on demand, with few connections each, closed with the router.

Whenever a request begins or ends, an httpx pool compares each of its connections with all
the others. With 32 connections that takes longer than the request itself. So there are
several clients with a few connections each, and a call uses the first that has room.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import httpx

C = TypeVar("C", bound="httpx.Client | httpx.AsyncClient")

_CALLS_PER_CLIENT = 8
_LIMITS = httpx.Limits(
    max_connections=4 * _CALLS_PER_CLIENT,
    max_keepalive_connections=_CALLS_PER_CLIENT,
    keepalive_expiry=30,
)
_HEADERS = {"user-agent": "semcache", "accept": "application/json, text/event-stream"}


class ClientPool(Generic[C]):
    """Clients of one kind. A call acquires one and releases it."""

    def __init__(self, make: Callable[[], C]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._clients: list[C] = []
        self._calls: list[int] = []

    def acquire(self) -> C:
        """The first client with room for a call; a new one if all are full."""
        with self._lock:
            for index, count in enumerate(self._calls):
                if count < _CALLS_PER_CLIENT:
                    self._calls[index] += 1
                    return self._clients[index]
            client = self._make()
            self._clients.append(client)
            self._calls.append(1)
            return client

    def release(self, client: C) -> None:
        """End a call that acquired the client."""
        with self._lock:
            for index, other in enumerate(self._clients):
                if other is client:
                    self._calls[index] -= 1

    def clear(self) -> list[C]:
        """Remove all clients and return them to be closed; the next call creates a new one."""
        with self._lock:
            clients, self._clients, self._calls = self._clients, [], []
            return clients


class Clients:
    """One pool of clients for all threads, and one for each event loop, which owns its sockets."""

    def __init__(
        self,
        transport: httpx.BaseTransport | None = None,
        async_transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._transport, self._async_transport = transport, async_transport
        self.blocking = ClientPool(lambda: httpx.Client(**self._options(transport)))
        self._loops: dict[asyncio.AbstractEventLoop, ClientPool[httpx.AsyncClient]] = {}
        self._lock = threading.Lock()

    @staticmethod
    def _options(transport: Any) -> dict[str, Any]:
        return {"transport": transport, "limits": _LIMITS, "headers": _HEADERS}

    def without_connections(self) -> Clients:
        """A copy without connections, for a child process: open ones belong to the parent."""
        return Clients(self._transport, self._async_transport)

    def of_running_loop(self) -> ClientPool[httpx.AsyncClient]:
        """The pool of the running event loop."""
        loop = asyncio.get_running_loop()
        with self._lock:
            pool = self._loops.get(loop)
            if pool is None:
                for closed in [other for other in self._loops if other.is_closed()]:
                    # Nothing can be awaited in a closed loop; dropping the clients closes them.
                    del self._loops[closed]
                options = self._options(self._async_transport)
                pool = self._loops[loop] = ClientPool(lambda: httpx.AsyncClient(**options))
            return pool

    def close(self) -> None:
        """Close the connections that threads use."""
        for client in self.blocking.clear():
            client.close()

    async def aclose(self) -> None:
        """Close the connections that threads and the running event loop use."""
        self.close()
        for client in self.of_running_loop().clear():
            await client.aclose()
