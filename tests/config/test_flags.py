"""Feature flags: where their values come from, in which order, and when they are read."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from semcache.config.flags import DEFAULTS, Flags
from semcache.errors import ConfigError
from tests.helpers import open_cache


def test_defaults_and_own_flags() -> None:
    """semcache's own flags have defaults; others need a value or a default."""
    flags = Flags({"mine": True})
    assert {name: flags.enabled(name) for name in DEFAULTS} == dict(DEFAULTS)
    assert flags.enabled("mine")
    assert flags.enabled("other", default=True)
    with pytest.raises(ConfigError, match="No flag 'other' is set"):
        flags.enabled("other")


def test_overrides_belong_to_a_thread_or_task() -> None:
    """Other threads and tasks do not see an override, and it ends with its block."""
    flags = Flags()
    seen: list[bool] = []

    async def tasks() -> None:
        async def one(value: bool) -> bool:
            with flags.override(caching_enabled=value):
                await asyncio.sleep(0.01)
                return flags.enabled("caching_enabled")

        assert await asyncio.gather(one(False), one(True)) == [False, True]

    with flags.override(caching_enabled=False):
        with flags.override(semantic_enabled=False):
            assert not flags.enabled("caching_enabled")
            assert not flags.enabled("semantic_enabled")
        assert flags.enabled("semantic_enabled")
        thread = threading.Thread(target=lambda: seen.append(flags.enabled("caching_enabled")))
        thread.start()
        thread.join()
    assert seen == [True]
    assert flags.enabled("caching_enabled")
    asyncio.run(tasks())
    with pytest.raises(ConfigError, match="True or False"), flags.override(caching_enabled=1):  # type: ignore[arg-type]
        pass


def test_values_are_read_on_every_use() -> None:
    """New values take effect with the next call."""
    flags = Flags({"caching_enabled": True})
    flags.values = {"caching_enabled": False}
    assert not flags.enabled("caching_enabled")


def test_an_openfeature_client() -> None:
    """The client takes precedence over the settings, and overrides over the client."""
    openfeature = pytest.importorskip("openfeature", reason="needs openfeature-sdk")
    from openfeature import api
    from openfeature.provider.in_memory_provider import InMemoryFlag, InMemoryProvider

    assert openfeature
    flag = InMemoryFlag("off", {"on": True, "off": False})
    api.set_provider_and_wait(InMemoryProvider({"caching_enabled": flag}))
    try:
        flags = Flags({"mine": True}, client=api.get_client())
        assert not flags.enabled("caching_enabled")
        assert flags.enabled("mine"), "the client does not know this flag"
        with flags.override(caching_enabled=True):
            assert flags.enabled("caching_enabled")
    finally:
        api.clear_providers()


def test_a_client_that_fails_is_ignored(caplog: pytest.LogCaptureFixture) -> None:
    """The value of the settings is used, with a warning."""

    class Broken:
        def get_boolean_value(self, flag_key: str, default_value: bool, /) -> bool:
            raise RuntimeError("down")

    assert Flags(client=Broken()).enabled("caching_enabled")
    assert "down" in caplog.text


def test_the_cache_obeys_the_flags(tmp_path: Path) -> None:
    """The semantic tier and the whole cache can be switched off, for async calls too."""
    flags = Flags()
    with open_cache(tmp_path, flags=flags, threshold=0.5) as cache:
        cache.put("how do I reset my password", "Open Settings.")
        near = "how do I reset the password"
        assert cache.lookup(near).tier == "semantic"
        with flags.override(semantic_enabled=False):
            assert cache.lookup(near).decision.reason == "semantic_off"
            assert cache.lookup("how do I reset my password").tier == "exact"
        with flags.override(caching_enabled=False):
            assert cache.lookup("how do I reset my password").decision.reason == "caching_off"
            assert cache.put("new", "answer") is None

            async def main() -> None:
                found = await cache.alookup("how do I reset my password")
                assert found.decision.reason == "caching_off"

            asyncio.run(main())
        assert cache.get("new") is None
        assert cache.stats().not_stored == {"caching_off": 1}
