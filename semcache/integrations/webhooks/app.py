"""The receiver of webhooks: a Starlette application, to be served or mounted.

It accepts `POST /webhook/{provider}` with events like these (the format of Standard Webhooks,
which OpenAI uses too)::

    {"type": "cache.invalidate", "data": {"tag": "hours", "namespace": "shop"}}
    {"type": "batch.completed", "data": {"id": "batch_123"}}

| status | when |
| --- | --- |
| 200 | the event was handled, is a repeat, or has a type without a handler |
| 400 | the body is not a JSON object, or names nothing to invalidate |
| 401 | the signature is missing or wrong, the time is off, or no secret is set |
| 403 | the sender may not invalidate this namespace |
| 404 | there is no such provider |
| 408 | the body did not arrive in time |
| 409 | the same event is being handled at the moment; it may be sent again |
| 413 | the body is too large |
| 500 | a handler failed; the event may be sent again |
| 503 | too many deliveries are arriving at once; the event may be sent again |
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from semcache.errors import ConfigError, RequestError, WebhookError
from semcache.integrations.webhooks.deliveries import Deliveries
from semcache.integrations.webhooks.signatures import verify

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request

    from semcache.config.sections import WebhookSettings, WebhookSource

logger = logging.getLogger("semcache")

INVALIDATE = "cache.invalidate"
FILE = "webhooks.db"
_CONDITIONS = frozenset({"tag", "tags", "namespace", "model", "id", "ids"})


class Invalidates(Protocol):
    """The part of a cache that is used here."""

    path: str

    def invalidate(
        self,
        *,
        tag: str | None = None,
        namespace: str | None = None,
        model: str | None = None,
        ids: Iterable[int] | None = None,
    ) -> int: ...


@dataclass(frozen=True, slots=True)
class WebhookEvent:
    """An event from a delivery that was verified.

    Attributes:
        provider: the sender, by its name in the settings.
        type: the type of event, such as "batch.completed".
        data: the content of the event.
        headers: the headers of the delivery, with names in lower case.
    """

    provider: str
    type: str
    data: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


Handler = Callable[[WebhookEvent], Any]


def webhook_app(
    cache: Invalidates,
    settings: WebhookSettings,
    *,
    handlers: Mapping[str, Handler] | None = None,
    clock: Callable[[], float] = time.time,
) -> Starlette:
    """Make the application; mount it, or serve it with `semcache webhooks serve`.

    Args:
        cache: the cache whose entries are invalidated; deliveries are recorded in its directory.
        settings: who may send webhooks, and how they are signed.
        handlers: functions, plain or async, by type of event, such as "batch.completed". One
            for "cache.invalidate" replaces the default; the one for "*" gets all other events.
        clock: returns seconds since the epoch.

    Raises:
        ConfigError: starlette is not installed.
        StoreError: deliveries cannot be recorded.
    """
    try:
        from starlette.applications import Starlette
        from starlette.routing import Route
    except ImportError:
        raise ConfigError(
            'Receiving webhooks needs more packages: pip install "semcache-llm[webhooks]".'
        ) from None
    receiver = _Receiver(cache, settings, dict(handlers or {}), clock)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:  # noqa: ARG001 - Starlette passes it
        yield
        receiver.close()

    return Starlette(
        routes=[Route("/webhook/{provider}", receiver.receive, methods=["POST"])],
        lifespan=lifespan,
    )


class _Receiver:
    def __init__(
        self,
        cache: Invalidates,
        settings: WebhookSettings,
        handlers: dict[str, Handler],
        clock: Callable[[], float],
    ) -> None:
        self._cache = cache
        self._settings = settings
        self._handlers = handlers
        self._clock = clock
        self._open = 0
        in_memory = cache.path == ":memory:"  # its deliveries are then in memory too
        self._path = Path(cache.path) if in_memory else Path(cache.path) / FILE
        self._open_deliveries: Deliveries | None = Deliveries(self._path)

    @property
    def _deliveries(self) -> Deliveries:
        if self._open_deliveries is None:  # the application was closed and started again
            self._open_deliveries = Deliveries(self._path)
        return self._open_deliveries

    def close(self) -> None:
        deliveries, self._open_deliveries = self._open_deliveries, None
        if deliveries is not None:
            deliveries.close()

    async def receive(self, request: Request) -> Any:
        from starlette.responses import JSONResponse

        provider = request.path_params["provider"]
        try:
            result = await self._process(provider, request)
        except WebhookError as error:
            logger.warning("a webhook from %r was refused: %s", provider, error)
            return JSONResponse({"error": str(error)}, error.status)
        except Exception:
            logger.exception("a webhook from %r failed", provider)
            return JSONResponse({"error": "the event could not be handled; send it again"}, 500)
        return JSONResponse(result)

    async def _process(self, provider: str, request: Request) -> dict[str, Any]:
        source = self._settings.sources.get(provider)
        if source is None:
            raise WebhookError(f"there is no webhook source {provider!r}", status=404)
        body = await self._arrived(request)
        if source.secret is None:
            raise WebhookError("no secret is set, so the delivery cannot be verified", status=401)
        headers = {name.lower(): value for name, value in request.headers.items()}
        name = verify(
            source.scheme,
            source.secret.get_secret_value(),
            headers,
            body,
            now=self._clock(),
            tolerance=self._settings.tolerance,
        )
        event = _event(provider, headers, body)
        state = await _in_thread(
            self._deliveries.begin, provider, name.text, self._clock(), name.kept
        )
        if state == "done":
            return {"status": "repeat"}
        if state == "under way":
            raise WebhookError("the event is being handled; send it again later", status=409)
        try:
            result = await self._handle(event, source)
        except BaseException:
            self._deliveries.forget(provider, name.text)
            raise
        await _in_thread(self._deliveries.done, provider, name.text)
        return result

    async def _arrived(self, request: Request) -> bytes:
        """Read the body; refuse it if it arrives too slowly, or if too many others are arriving."""
        if self._open >= self._settings.max_open:
            raise WebhookError("too many deliveries are arriving; send it again later", status=503)
        self._open += 1
        try:
            async with asyncio.timeout(self._settings.body_timeout):
                return await self._body(request)
        except TimeoutError:
            raise WebhookError(
                f"the body did not arrive within {self._settings.body_timeout:g} s", status=408
            ) from None
        finally:
            self._open -= 1

    async def _body(self, request: Request) -> bytes:
        limit = self._settings.max_bytes
        length = request.headers.get("content-length", "")
        body = bytearray()
        too_large = length.isdigit() and int(length) > limit
        if not too_large:
            async for chunk in request.stream():
                body += chunk
                if too_large := len(body) > limit:
                    break
        if too_large:
            raise WebhookError(f"the body is larger than {limit:,} bytes", status=413)
        return bytes(body)

    async def _handle(self, event: WebhookEvent, source: WebhookSource) -> dict[str, Any]:
        handler = self._handlers.get(event.type)
        if handler is None and event.type == INVALIDATE:
            count = await _in_thread(self._invalidate, event.data, source)
            logger.info("%s invalidated %d entries", event.provider, count)
            return {"status": "ok", "invalidated": count}
        handler = handler or self._handlers.get("*")
        if handler is None:
            return {"status": "ignored"}
        if inspect.iscoroutinefunction(handler):
            await handler(event)
        elif inspect.isawaitable(result := await _in_thread(handler, event)):
            await result
        return {"status": "ok"}

    def _invalidate(self, data: Mapping[str, Any], source: WebhookSource) -> int:
        unknown = sorted(set(data) - _CONDITIONS)
        empty = sorted(name for name, value in data.items() if value in (None, "", []))
        if unknown or empty or not data:
            problem = "there is no condition"
            if unknown:
                problem = f"unknown conditions: {', '.join(unknown)}"
            elif empty:
                problem = f"conditions without a value: {', '.join(empty)}"
            raise WebhookError(
                f"{problem}; give one or more of {', '.join(sorted(_CONDITIONS))}", status=400
            )
        if source.namespaces and data.get("namespace") not in source.namespaces:
            raise WebhookError(
                "this sender must name one of its namespaces: " + ", ".join(source.namespaces),
                status=403,
            )
        ids = _as_list(data, "ids", "id", int)
        tags = _as_list(data, "tags", "tag", str)
        rest = {name: data[name] for name in ("namespace", "model") if name in data}
        if not all(isinstance(value, str) for value in rest.values()):
            raise WebhookError("namespace and model must be strings", status=400)
        if ids is not None:
            rest["ids"] = ids
        try:
            if tags is None:
                return self._cache.invalidate(**rest)
            return sum(self._cache.invalidate(tag=tag, **rest) for tag in tags)
        except (ConfigError, RequestError) as error:
            raise WebhookError(str(error), status=400) from None


def _as_list(
    data: Mapping[str, Any], plural: str, singular: str, kind: type[Any]
) -> list[Any] | None:
    """The values under both names; None if neither is there."""
    if plural not in data and singular not in data:
        return None
    values: list[Any] = []
    for name in (plural, singular):
        value = data.get(name, [])
        values += value if isinstance(value, list) else [value]
    if not all(isinstance(value, kind) and not isinstance(value, bool) for value in values):
        raise WebhookError(f"{plural} must be a list of {kind.__name__}", status=400)
    return values


def _event(provider: str, headers: Mapping[str, str], body: bytes) -> WebhookEvent:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise WebhookError("the body is not a JSON object", status=400)
    kind = value.get("type") or headers.get("x-github-event") or "unknown"
    data = value.get("data")
    return WebhookEvent(provider, str(kind), data if isinstance(data, dict) else value, headers)


async def _in_thread(work: Callable[..., Any], *arguments: Any) -> Any:
    from starlette.concurrency import run_in_threadpool

    return await run_in_threadpool(work, *arguments)
