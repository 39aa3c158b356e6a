"""HTTP clients: made when they are needed, kept small, closed with the router.

A pool of httpx looks at each of its connections, and for each of these at all of them
again, whenever a request begins or ends. With 32 connections that takes longer than the
request itself; so there are several pools with a few connections each, and a call takes
the first one that has room.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import httpx

C = TypeVar("C", bound="httpx.Client | httpx.AsyncClient")

ROOM = 8
"""Calls at once in one pool."""
_POOL = httpx.Limits(max_connections=4 * ROOM, max_keepalive_connections=ROOM, keepalive_expiry=30)
_HEADERS = {"user-agent": "semcache", "accept": "application/json, text/event-stream"}


class Pools(Generic[C]):
    """Clients of one kind. A call takes one and gives it back."""

    def __init__(self, make: Callable[[], C]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._pools: list[C] = []
        self._taken: list[int] = []

    def take(self) -> C:
        """The first client with room for a call."""
        with self._lock:
            for place, count in enumerate(self._taken):
                if count < ROOM:
                    self._taken[place] += 1
                    return self._pools[place]
            client = self._make()
            self._pools.append(client)
            self._taken.append(1)
            return client

    def give_back(self, client: C) -> None:
        """A call has ended."""
        with self._lock:
            for place, pool in enumerate(self._pools):
                if pool is client:
                    self._taken[place] -= 1

    def emptied(self) -> list[C]:
        """All clients, to be closed; the next call makes new ones."""
        with self._lock:
            pools, self._pools, self._taken = self._pools, [], []
            return pools


class Clients:
    """Clients for all threads, and for each event loop its own, whose sockets belong to it."""

    def __init__(
        self,
        transport: httpx.BaseTransport | None = None,
        async_transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._transport, self._async_transport = transport, async_transport
        self.blocking = Pools(lambda: httpx.Client(**self._options(transport)))
        self._loops: dict[asyncio.AbstractEventLoop, Pools[httpx.AsyncClient]] = {}
        self._lock = threading.Lock()

    @staticmethod
    def _options(transport: Any) -> dict[str, Any]:
        return {"transport": transport, "limits": _POOL, "headers": _HEADERS}

    def anew(self) -> Clients:
        """The same with no connections: in a child process they are the parent's."""
        return Clients(self._transport, self._async_transport)

    def of_loop(self) -> Pools[httpx.AsyncClient]:
        """The clients of the running event loop."""
        loop = asyncio.get_running_loop()
        with self._lock:
            pools = self._loops.get(loop)
            if pools is None:
                for ended in [one for one in self._loops if one.is_closed()]:
                    del self._loops[ended]  # nothing can be awaited there; the sockets close
                options = self._options(self._async_transport)
                pools = self._loops[loop] = Pools(lambda: httpx.AsyncClient(**options))
            return pools

    def close(self) -> None:
        """Close the connections of the threads."""
        for client in self.blocking.emptied():
            client.close()

    async def aclose(self) -> None:
        """`close`, and close those of the running event loop."""
        self.close()
        for client in self.of_loop().emptied():
            await client.aclose()
