"""HTTP clients: pooled, made when they are needed, closed with the router."""

from __future__ import annotations

import asyncio
import threading
from weakref import WeakKeyDictionary

import httpx

_POOL = httpx.Limits(max_connections=1000, max_keepalive_connections=100, keepalive_expiry=30)
_HEADERS = {"user-agent": "semcache", "accept": "application/json, text/event-stream"}


class Clients:
    """One client for all threads, and one for each event loop, whose sockets belong to it."""

    def __init__(
        self,
        transport: httpx.BaseTransport | None = None,
        async_transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._transport, self._async_transport = transport, async_transport
        self._lock = threading.Lock()
        self._client: httpx.Client | None = None
        self._of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = (
            WeakKeyDictionary()
        )

    def anew(self) -> Clients:
        """The same with no connections: in a child process they are the parent's."""
        return Clients(self._transport, self._async_transport)

    def blocking(self) -> httpx.Client:
        """The client of all threads."""
        client = self._client
        if client is None:
            with self._lock:
                if self._client is None:
                    self._client = httpx.Client(
                        transport=self._transport, limits=_POOL, headers=_HEADERS
                    )
                client = self._client
        return client

    def of_loop(self) -> httpx.AsyncClient:
        """The client of the running event loop."""
        loop = asyncio.get_running_loop()
        client = self._of_loops.get(loop)
        if client is None:
            client = httpx.AsyncClient(
                transport=self._async_transport, limits=_POOL, headers=_HEADERS
            )
            with self._lock:
                self._of_loops[loop] = client
        return client

    def close(self) -> None:
        """Close the connections of the threads."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    async def aclose(self) -> None:
        """`close`, and close those of the running event loop."""
        self.close()
        with self._lock:
            client = self._of_loops.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()
