"""Feature flags: who is asked, in which order, and when."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from semcache.config.flags import DEFAULTS, Flags
from semcache.errors import ConfigError
from tests.helpers import open_cache


def test_defaults_and_own_flags() -> None:
    """Ours have defaults; others need a value or a default."""
    flags = Flags({"mine": True})
    assert {name: flags.enabled(name) for name in DEFAULTS} == dict(DEFAULTS)
    assert flags.enabled("mine")
    assert flags.enabled("other", default=True)
    with pytest.raises(ConfigError, match="No flag 'other' is set"):
        flags.enabled("other")


def test_overrides_are_the_thread_s_and_the_task_s_own() -> None:
    """What one sets, another does not see; at the end of the block it is gone."""
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


def test_values_are_read_when_they_matter() -> None:
    """New settings count from the next call."""
    flags = Flags({"caching_enabled": True})
    flags.values = {"caching_enabled": False}
    assert not flags.enabled("caching_enabled")


def test_an_openfeature_client() -> None:
    """Asked before the settings, with their value as default; overrides go first."""
    openfeature = pytest.importorskip("openfeature", reason="needs openfeature-sdk")
    from openfeature import api
    from openfeature.provider.in_memory_provider import InMemoryFlag, InMemoryProvider

    assert openfeature
    flag = InMemoryFlag("off", {"on": True, "off": False})
    api.set_provider_and_wait(InMemoryProvider({"caching_enabled": flag}))
    try:
        flags = Flags({"mine": True}, client=api.get_client())
        assert not flags.enabled("caching_enabled")
        assert flags.enabled("mine"), "a flag that the client does not know"
        with flags.override(caching_enabled=True):
            assert flags.enabled("caching_enabled")
    finally:
        api.clear_providers()


def test_a_client_that_fails_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    """With a warning, and the settings' value."""

    class Broken:
        def get_boolean_value(self, flag_key: str, default_value: bool, /) -> bool:
            raise RuntimeError("down")

    assert Flags(client=Broken()).enabled("caching_enabled")
    assert "down" in caplog.text


def test_the_cache_looks_at_them(tmp_path: Path) -> None:
    """Without paraphrases, without anything, and as before; async too."""
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
