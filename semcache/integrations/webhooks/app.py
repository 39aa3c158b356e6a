"""The receiver of webhooks: a Starlette application, to be served or mounted.

`POST /webhook/{provider}`, with an event of this form (Standard Webhooks; OpenAI's too)::

    {"type": "cache.invalidate", "data": {"tag": "hours", "namespace": "shop"}}
    {"type": "batch.completed", "data": {"id": "batch_123"}}

| answer | when |
| --- | --- |
| 200 | it was handled; or it had come before, or nobody listens to its type |
| 400 | it is no JSON object, or names nothing to invalidate |
| 401 | the signature is missing or wrong, the time is off, or no secret is set |
| 404 | no such provider |
| 409 | it is just being handled: it may be sent again |
| 413 | it is too large |
| 500 | a handler failed: it may be sent again |
"""

from __future__ import annotations

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

    from semcache.config.settings import WebhookSettings

logger = logging.getLogger("semcache")

INVALIDATE = "cache.invalidate"
FILE = "webhooks.db"
_CONDITIONS = frozenset({"tag", "tags", "namespace", "model", "id", "ids"})


class Invalidates(Protocol):
    """What is needed of a cache."""

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
    """An event that was delivered and is genuine.

    Attributes:
        provider: who sent it. type: such as "batch.completed". data: what it says.
        headers: of the delivery, in lower case.
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
    """The application; mount it, or serve it with `semcache webhooks serve`.

    Args:
        cache: whose entries are invalidated; deliveries are remembered in its directory.
        settings: who may send, and how they sign.
        handlers: by type, plain or async, for whatever else is sent ("batch.completed"), and
            before the cache's own for "cache.invalidate"; "*" hears all others.
        clock: seconds since the epoch.

    Raises:
        ConfigError: starlette is not installed.
        StoreError: deliveries cannot be remembered.
    """
    try:
        from starlette.applications import Starlette
        from starlette.routing import Route
    except ImportError:
        raise ConfigError(
            'The receiver of webhooks needs more: pip install "semcache-llm[webhooks]".'
        ) from None
    receiver = _Receiver(cache, settings, dict(handlers or {}), clock)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:  # noqa: ARG001 - Starlette's form
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
        self._path = Path(cache.path) / FILE
        self._opened: Deliveries | None = Deliveries(self._path)

    @property
    def _deliveries(self) -> Deliveries:
        if self._opened is None:  # the application is started once more
            self._opened = Deliveries(self._path)
        return self._opened

    def close(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    async def receive(self, request: Request) -> Any:
        from starlette.responses import JSONResponse

        provider = request.path_params["provider"]
        try:
            done = await self._received(provider, request)
        except WebhookError as error:
            logger.warning("a webhook of %r was refused: %s", provider, error)
            return JSONResponse({"error": str(error)}, error.status)
        except Exception:
            logger.exception("a webhook of %r failed", provider)
            return JSONResponse({"error": "it could not be handled; send it again"}, 500)
        return JSONResponse(done)

    async def _received(self, provider: str, request: Request) -> dict[str, Any]:
        source = self._settings.sources.get(provider)
        if source is None:
            raise WebhookError(f"nobody called {provider!r} may send here", status=404)
        body = await self._body(request)
        if source.secret is None:
            raise WebhookError("no secret is set for it, so nothing can be trusted", status=401)
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
            raise WebhookError("it is being handled; send it again later", status=409)
        try:
            done = await self._handled(event)
        except BaseException:
            self._deliveries.forget(provider, name.text)
            raise
        await _in_thread(self._deliveries.done, provider, name.text)
        return done

    async def _body(self, request: Request) -> bytes:
        most = self._settings.max_bytes
        said = request.headers.get("content-length", "")
        body = bytearray()
        too_large = said.isdigit() and int(said) > most
        if not too_large:
            async for piece in request.stream():
                body += piece
                if too_large := len(body) > most:
                    break
        if too_large:
            raise WebhookError(f"it is larger than {most:,} bytes", status=413)
        return bytes(body)

    async def _handled(self, event: WebhookEvent) -> dict[str, Any]:
        handler = self._handlers.get(event.type)
        if handler is None and event.type == INVALIDATE:
            count = await _in_thread(self._invalidate, event.data)
            logger.info("%s invalidated %d entries", event.provider, count)
            return {"status": "ok", "invalidated": count}
        handler = handler or self._handlers.get("*")
        if handler is None:
            return {"status": "ignored"}
        if inspect.iscoroutinefunction(handler):
            await handler(event)
        elif inspect.isawaitable(done := await _in_thread(handler, event)):
            await done
        return {"status": "ok"}

    def _invalidate(self, data: Mapping[str, Any]) -> int:
        unknown = sorted(set(data) - _CONDITIONS)
        empty = sorted(name for name, value in data.items() if value in (None, "", []))
        if unknown or empty or not data:
            raise WebhookError(
                f"what is to be invalidated? It says {', '.join(unknown or empty) or 'nothing'}"
                f"{' without a value' if empty and not unknown else ''}; known are "
                f"{', '.join(sorted(_CONDITIONS))}",
                status=400,
            )
        ids = _listed(data, "ids", "id", int)
        tags = _listed(data, "tags", "tag", str)
        rest = {name: data[name] for name in ("namespace", "model") if name in data}
        if not all(isinstance(value, str) for value in rest.values()):
            raise WebhookError("namespace and model are text", status=400)
        if ids is not None:
            rest["ids"] = ids
        try:
            if tags is None:
                return self._cache.invalidate(**rest)
            return sum(self._cache.invalidate(tag=tag, **rest) for tag in tags)
        except (ConfigError, RequestError) as error:
            raise WebhookError(str(error), status=400) from None


def _listed(data: Mapping[str, Any], many: str, one: str, kind: type[Any]) -> list[Any] | None:
    if many not in data and one not in data:
        return None
    values: list[Any] = []
    for name in (many, one):
        given = data.get(name, [])
        values += given if isinstance(given, list) else [given]
    if not all(isinstance(value, kind) and not isinstance(value, bool) for value in values):
        raise WebhookError(f"{many} is a list of {kind.__name__}", status=400)
    return values


def _event(provider: str, headers: Mapping[str, str], body: bytes) -> WebhookEvent:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise WebhookError("it is no JSON object", status=400)
    kind = value.get("type") or headers.get("x-github-event") or "unknown"
    data = value.get("data")
    return WebhookEvent(provider, str(kind), data if isinstance(data, dict) else value, headers)


async def _in_thread(work: Callable[..., Any], *arguments: Any) -> Any:
    from starlette.concurrency import run_in_threadpool

    return await run_in_threadpool(work, *arguments)
