"""Webhooks: which deliveries are accepted, what they do, and that they do it only once."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from semcache import SemanticCache
from semcache.config.sections import WebhookSettings, WebhookSource
from semcache.integrations.webhooks import WebhookEvent, webhook_app
from tests.helpers import Clock, open_cache

pytest.importorskip("starlette", reason="needs the webhooks extra")
from standardwebhooks import Webhook
from starlette.testclient import TestClient

SECRET = "whsec_" + "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"
OWN = "s3cret-s3cret-s3cret"
INVALIDATE = {"type": "cache.invalidate", "data": {"tag": "hours"}}

SETTINGS = WebhookSettings(
    sources={
        "openai": WebhookSource(scheme="standard", secret=SecretStr(SECRET)),
        "own": WebhookSource(scheme="hex", secret=SecretStr(OWN)),
        "github": WebhookSource(scheme="github", secret=SecretStr(OWN)),
        "unset": WebhookSource(scheme="standard"),
    },
    max_bytes=2000,
)


@pytest.fixture
def clock() -> Clock:
    return Clock(time.time())


@pytest.fixture
def cached(tmp_path: Path) -> Iterator[SemanticCache]:
    with open_cache(tmp_path / "cache") as opened:
        opened.put("When do you open?", "At nine.", tags=["hours"])
        opened.put("Where are you?", "Here.", namespace="shop", tags=["place"])
        yield opened


@pytest.fixture
def client(cached: SemanticCache, clock: Clock) -> Iterator[TestClient]:
    with TestClient(webhook_app(cached, SETTINGS, clock=clock)) as opened:
        yield opened


def standard(body: bytes, at: float, name: str = "msg_1", secret: str = SECRET) -> dict[str, str]:
    signature = Webhook(secret).sign(name, datetime.fromtimestamp(int(at), UTC), body.decode())
    return {
        "webhook-id": name,
        "webhook-timestamp": str(int(at)),
        "webhook-signature": signature,
    }


def hexed(
    body: bytes, secret: str = "s3cret-s3cret-s3cret", at: float | None = None
) -> dict[str, str]:
    signed = body if at is None else f"{at:.0f}.".encode() + body
    found = {"x-signature": hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}
    return found if at is None else {**found, "x-timestamp": f"{at:.0f}"}


def github(body: bytes, secret: str = OWN, name: str = "1") -> dict[str, str]:
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {
        "x-hub-signature-256": f"sha256={digest}",
        "x-github-delivery": name,
        "x-github-event": "push",
    }


def body_of(event: Any) -> bytes:
    return json.dumps(event).encode()


def test_each_scheme_is_accepted(client: TestClient, cached: SemanticCache, clock: Clock) -> None:
    """The schemes are OpenAI's, plain hex with and without a time, and GitHub's."""
    body = body_of(INVALIDATE)
    for provider, headers in (
        ("openai", standard(body, clock.now)),
        ("own", hexed(body)),
        ("own", hexed(body, at=clock.now)),
        ("github", github(body)),
    ):
        cached.put("When do you open?", "At nine.", tags=["hours"])
        reply = client.post(f"/webhook/{provider}", content=body, headers=headers)
        assert (reply.status_code, reply.json()) == (200, {"status": "ok", "invalidated": 1})
        assert cached.get("When do you open?") is None


REFUSED = {
    "no signature": ("openai", lambda body, now: {}),
    "another's secret": (
        "openai",
        lambda body, now: standard(body, now, secret="whsec_b3RoZXItb3RoZXItb3RoZXI="),
    ),
    "another body": ("openai", lambda body, now: standard(body + b" ", now)),
    "too old": ("openai", lambda body, now: standard(body, now - 301)),
    "too early": ("openai", lambda body, now: standard(body, now + 301)),
    "an invalid time": (
        "openai",
        lambda body, now: {**standard(body, now), "webhook-timestamp": "nan"},
    ),
    "an invalid signature": (
        "openai",
        lambda body, now: {**standard(body, now), "webhook-signature": "nonsense"},
    ),
    "invalid base64": (
        "openai",
        lambda body, now: {**standard(body, now), "webhook-signature": "v1,%%%"},
    ),
    "a changed id": ("openai", lambda body, now: {**standard(body, now), "webhook-id": "other"}),
    "hex, wrong": ("own", lambda body, now: hexed(body, "other")),
    "hex, missing": ("own", lambda body, now: {}),
    "hex, too old": ("own", lambda body, now: hexed(body, at=now - 301)),
    "hex, a time put in front": (
        "own",
        lambda body, now: {**hexed(body), "x-timestamp": f"{now:.0f}"},
    ),
    "github, wrong": ("github", lambda body, now: github(body, "other")),
    "github, sha1": ("github", lambda body, now: {"x-hub-signature": "sha1=00"}),
    "no secret is set": ("unset", lambda body, now: standard(body, now)),
}


@pytest.mark.parametrize(("provider", "headers"), REFUSED.values(), ids=REFUSED)
def test_other_deliveries_are_refused(
    client: TestClient, cached: SemanticCache, clock: Clock, provider: str, headers: Any
) -> None:
    """The status is 401, and nothing is invalidated."""
    body = body_of(INVALIDATE)
    reply = client.post(f"/webhook/{provider}", content=body, headers=headers(body, clock.now))
    assert reply.status_code == 401
    assert len(cached) == 2


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/webhook/nobody", body_of(INVALIDATE), 404),
        ("/elsewhere", body_of(INVALIDATE), 404),
        ("/webhook/own", b"x" * 2001, 413),
        ("/webhook/own", b"no json", 400),
        ("/webhook/own", b"[1]", 400),
        ("/webhook/own", b"\xff\xfe", 400),
        ("/webhook/own", body_of({"type": "cache.invalidate", "data": {}}), 400),
        ("/webhook/own", body_of({"type": "cache.invalidate", "data": {"tga": "x"}}), 400),
        ("/webhook/own", body_of({"type": "cache.invalidate", "data": {"ids": ["x"]}}), 400),
        ("/webhook/own", body_of({"type": "cache.invalidate", "data": {"tags": [1]}}), 400),
    ],
)
def test_bad_requests(
    client: TestClient, cached: SemanticCache, path: str, body: bytes, status: int
) -> None:
    """404 for an unknown provider, 413 for too large a body, 400 for a wrong event."""
    reply = client.post(path, content=body, headers=hexed(body))
    assert reply.status_code == status
    assert len(cached) == 2
    assert client.get(path).status_code in (404, 405)


def test_a_body_of_unknown_length_is_cut_off(client: TestClient) -> None:
    """The body is not read into memory to find out how large it is."""

    def batched() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * 1000

    assert client.post("/webhook/own", content=batched()).status_code == 413


@pytest.mark.parametrize(
    ("data", "left"),
    [
        ({"tag": "hours"}, 1),
        ({"tags": ["hours", "place"]}, 0),
        ({"namespace": "shop"}, 1),
        ({"namespace": "shop", "tag": "hours"}, 2),
        ({"ids": [1, 2, 99]}, 0),
        ({"id": 1}, 1),
        ({"model": "none"}, 2),
    ],
)
def test_what_is_invalidated(
    client: TestClient, cached: SemanticCache, data: Any, left: int
) -> None:
    """Entries are selected by tag, namespace, model or id; several conditions must all hold."""
    body = body_of({"type": "cache.invalidate", "data": data})
    reply = client.post("/webhook/own", content=body, headers=hexed(body))
    assert reply.status_code == 200
    assert reply.json()["invalidated"] == 2 - left
    assert len(cached) == left


def test_a_repeat_does_nothing_after_a_restart_too(cached: SemanticCache, clock: Clock) -> None:
    """The status is 200, so the sender stops; another, unsigned delivery id makes no difference."""
    body = body_of(INVALIDATE)
    posts = [
        ("openai", standard(body, clock.now)),
        ("own", hexed(body, at=clock.now)),
        ("github", github(body)),
    ]
    for again in range(2):
        with TestClient(webhook_app(cached, SETTINGS, clock=clock)) as client:
            for provider, headers in posts:
                reply = client.post(f"/webhook/{provider}", content=body, headers=headers)
                assert reply.status_code == 200
                assert reply.json()["status"] == ("repeat" if again else "ok")
            other = github(body, name="another-id")
            assert client.post("/webhook/github", content=body, headers=other).json() == {
                "status": "repeat"
            }


def test_handlers(cached: SemanticCache, clock: Clock) -> None:
    """Handlers get the end of a batch and other types; events without a handler are ignored."""
    heard: list[tuple[str, Any]] = []

    async def finished(event: WebhookEvent) -> None:
        await asyncio.sleep(0)
        heard.append((event.provider, event.data["id"]))

    def deployed(event: WebhookEvent) -> None:
        heard.append((event.type, cached.clear()))

    handlers = {"batch.completed": finished, "push": deployed}
    with TestClient(webhook_app(cached, SETTINGS, handlers=handlers, clock=clock)) as client:

        def post(provider: str, event: Any, sign: Any) -> Any:
            body = body_of(event)
            return client.post(f"/webhook/{provider}", content=body, headers=sign(body)).json()

        event = {"type": "batch.completed", "data": {"id": "batch_1"}}
        assert post("openai", event, lambda b: standard(b, clock.now)) == {"status": "ok"}
        assert post("github", {"ref": "main"}, github) == {"status": "ok"}
        assert post("own", {"type": "unheard"}, hexed) == {"status": "ignored"}
    assert heard == [("openai", "batch_1"), ("push", 2)]


def test_a_failed_delivery_may_be_sent_again(cached: SemanticCache, clock: Clock) -> None:
    """The status is 500, without details of the error; the next try does not count as a repeat."""
    tries = 0

    def flaky(event: WebhookEvent) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise RuntimeError("the secret is 42")

    body = body_of({"type": "deployed"})
    app = webhook_app(cached, SETTINGS, handlers={"*": flaky}, clock=clock)
    with TestClient(app) as client:
        first = client.post("/webhook/own", content=body, headers=hexed(body))
        assert first.status_code == 500
        assert "42" not in first.text
        assert client.post("/webhook/own", content=body, headers=hexed(body)).status_code == 200
    assert tries == 2


def test_equal_deliveries_at_once_are_handled_once(cached: SemanticCache, clock: Clock) -> None:
    """However they race, the handler runs once."""
    from concurrent.futures import ThreadPoolExecutor

    count = 0

    def handler(event: WebhookEvent) -> None:
        nonlocal count
        count += 1

    body = body_of({"type": "deployed"})
    app = webhook_app(cached, SETTINGS, handlers={"*": handler}, clock=clock)
    with TestClient(app) as client, ThreadPoolExecutor(8) as pool:
        posts = [
            pool.submit(client.post, "/webhook/own", content=body, headers=hexed(body))
            for _ in range(16)
        ]
        found = {post.result().status_code for post in posts}
        assert found <= {200, 409}, "409: it is being handled"
        assert client.post("/webhook/own", content=body, headers=hexed(body)).status_code == 200
    assert count == 1


@pytest.mark.parametrize("secret", ["", "  ", "whsec_"])
def test_an_empty_secret_counts_as_missing(
    cached: SemanticCache, clock: Clock, secret: str
) -> None:
    """Anybody could sign with it, so every delivery is refused."""
    source = WebhookSource(scheme="github", secret=SecretStr(secret))
    assert source.secret is None
    body = body_of(INVALIDATE)
    app = webhook_app(cached, WebhookSettings(sources={"gh": source}), clock=clock)
    with TestClient(app) as client:
        reply = client.post("/webhook/gh", content=body, headers=github(body, secret))
    assert reply.status_code == 401
    assert len(cached) == 2


@pytest.mark.parametrize(
    "data",
    [
        {"tag": "hours", "tags": None, "namespace": "shop"},
        {"id": None, "namespace": "shop"},
        {"namespace": ""},
        {"namespace": 5},
        {"model": ["x"]},
        {"tags": []},
    ],
)
def test_an_incomplete_condition_is_refused(
    client: TestClient, cached: SemanticCache, data: dict[str, Any]
) -> None:
    """A condition without a value must not widen what is invalidated."""
    body = body_of({"type": "cache.invalidate", "data": data})
    assert client.post("/webhook/own", content=body, headers=hexed(body)).status_code == 400
    assert len(cached) == 2


def test_a_delivery_whose_handler_died_may_be_sent_again(
    cached: SemanticCache, clock: Clock
) -> None:
    """If handling was begun and never finished, it may begin again after a minute."""
    from semcache.integrations.webhooks.deliveries import Deliveries

    memory = Deliveries(Path(cached.path) / "webhooks.db")
    assert memory.begin("own", "n", clock.now, 1000.0) == "new"
    assert memory.begin("own", "n", clock.now + 30, 1000.0) == "under way"
    assert memory.begin("own", "n", clock.now + 61, 1000.0) == "new"
    memory.done("own", "n")
    assert memory.begin("own", "n", clock.now + 200, 1000.0) == "done"
    assert memory.begin("own", "n", clock.now + 1001, 1000.0) == "new"
    memory.close()


def test_an_equal_event_much_later_is_not_a_repeat(
    client: TestClient, cached: SemanticCache, clock: Clock
) -> None:
    """Without a signed time, equal bodies count as one delivery only within the tolerance."""
    body = body_of(INVALIDATE)
    assert client.post("/webhook/own", content=body, headers=hexed(body)).json()["status"] == "ok"
    assert (
        client.post("/webhook/own", content=body, headers=hexed(body)).json()["status"] == "repeat"
    )
    clock.now += 301
    assert client.post("/webhook/own", content=body, headers=hexed(body)).json()["status"] == "ok"


def test_an_application_can_be_started_twice(cached: SemanticCache, clock: Clock) -> None:
    """After the second start, the deliveries of the first are still known."""
    app = webhook_app(cached, SETTINGS, clock=clock)
    body = body_of(INVALIDATE)
    for status in ("ok", "repeat"):
        with TestClient(app) as client:
            reply = client.post("/webhook/own", content=body, headers=hexed(body))
            assert reply.json()["status"] == status


def test_a_cache_in_memory_writes_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """Deliveries are remembered in memory too, so a repeat is recognised."""
    monkeypatch.chdir(tmp_path)
    body = body_of(INVALIDATE)
    with (
        open_cache(":memory:") as cache,
        TestClient(webhook_app(cache, SETTINGS, clock=clock)) as client,
    ):
        for status in ("ok", "repeat"):
            reply = client.post("/webhook/own", content=body, headers=hexed(body))
            assert reply.json()["status"] == status
    assert list(tmp_path.iterdir()) == []
