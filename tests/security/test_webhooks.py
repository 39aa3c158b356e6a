"""What a sender of webhooks, or somebody who claims to be one, cannot do."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError
from starlette.testclient import TestClient

from semcache import SemanticCache
from semcache.config.sections import WebhookSettings, WebhookSource
from semcache.integrations.webhooks import webhook_app

SECRET = "s3cret-s3cret-s3cret"
SETTINGS = WebhookSettings(
    sources={
        "any": WebhookSource(scheme="hex", secret=SecretStr(SECRET)),
        "shop": WebhookSource(scheme="hex", secret=SecretStr(SECRET), namespaces=("shop",)),
    },
    body_timeout=0.2,
    max_open=2,
)


@pytest.fixture
def client(cache: SemanticCache) -> Iterator[TestClient]:
    for namespace in ("shop", "bank"):
        cache.put("Hello?", "Hi.", namespace=namespace, tags=["t"])
    with TestClient(webhook_app(cache, SETTINGS)) as opened:
        yield opened


def send(client: TestClient, source: str, data: Any) -> int:
    body = json.dumps({"type": "cache.invalidate", "data": data}).encode()
    signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    reply = client.post(f"/webhook/{source}", content=body, headers={"x-signature": signature})
    return reply.status_code


@pytest.mark.parametrize(
    "data",
    [{"tag": "t"}, {"tag": "t", "namespace": "bank"}, {"model": "m"}, {"ids": [1, 2]},
     {"namespace": ["shop"]}, {"namespace": "shop "}],
)  # fmt: skip
def test_a_sender_reaches_its_own_namespaces_only(
    client: TestClient, cache: SemanticCache, data: dict[str, Any]
) -> None:
    assert send(client, "shop", data) in (400, 403)
    assert len(cache) == 2


def test_a_sender_reaches_its_own_namespaces(client: TestClient, cache: SemanticCache) -> None:
    assert send(client, "shop", {"namespace": "shop", "tag": "t"}) == 200
    assert cache.get("Hello?", namespace="bank") is not None
    assert cache.get("Hello?", namespace="shop") is None


@pytest.mark.parametrize(
    "data",
    [{}, {"model": " "}, {"model": ""}, {"namespace": "\xa0"}, {"tag": ""}, {"model": None},
     {"model": "\x00"}, {"tags": []}, {"ids": []}],
)  # fmt: skip
def test_an_empty_condition_deletes_nothing(
    client: TestClient, cache: SemanticCache, data: dict[str, Any]
) -> None:
    assert send(client, "any", data) == 400
    assert len(cache) == 2


@pytest.mark.parametrize("secret", ["a", "whsec_YQ==", "0123456789"])
def test_a_secret_that_can_be_guessed_is_refused(secret: str) -> None:
    with pytest.raises(ValidationError, match="guessed"):
        WebhookSource(secret=SecretStr(secret))


def test_bodies_that_do_not_end_are_not_held(cache: SemanticCache) -> None:
    """They are told so in time, and no more of them than are allowed at once are waited for."""
    app = webhook_app(cache, SETTINGS)

    async def ask() -> int:
        status: list[int] = []

        async def receive() -> dict[str, Any]:
            await asyncio.sleep(5)
            return {"type": "http.request", "body": b"", "more_body": True}

        async def reply(message: dict[str, Any]) -> None:
            status.append(message.get("status", 0))

        scope = {"type": "http", "method": "POST", "path": "/webhook/any", "headers": [],
                 "query_string": b"", "http_version": "1.1", "scheme": "http",
                 "server": ("a", 1), "client": ("b", 2), "root_path": ""}  # fmt: skip
        await app(scope, receive, reply)
        return status[0]

    async def main() -> list[int]:
        return await asyncio.wait_for(asyncio.gather(*(ask() for _ in range(5))), 4)

    assert sorted(asyncio.run(main())) == [408, 408, 503, 503, 503]
