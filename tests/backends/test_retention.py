from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcache.backends.retention import Lifetime, Quota, Retention, seconds
from semcache.errors import ConfigError


@pytest.mark.parametrize("ttl", [-1, -0.001, timedelta(seconds=-1), float("nan"), "60", True])
def test_a_wrong_ttl_is_refused(ttl: Any) -> None:
    """A negative TTL, or one that is not a number, raises an error that names the option."""
    with pytest.raises(ConfigError, match="ttl is"):
        seconds(ttl)


def test_the_nearest_rule_for_a_ttl_wins() -> None:
    """A TTL of the call precedes that of the namespace and the default; None means no limit."""
    rules = Retention(ttl=10, namespace_ttl={"news": 5, "laws": None})
    assert rules.lifetime(100, "other").expires_at == 110
    assert rules.lifetime(100, "news").expires_at == 105
    assert rules.lifetime(100, "laws") == Lifetime()
    assert rules.lifetime(100, "laws", timedelta(minutes=1)).expires_at == 160
    assert rules.lifetime(100, "news", None) == Lifetime()


def test_a_soft_age_comes_before_the_end() -> None:
    """An entry is fresh for its TTL, then stale; a sliding one stores its TTL."""
    assert Retention(ttl=10, stale_while_revalidate=5).lifetime(100, "n") == Lifetime(115, 110)
    assert Retention(ttl=10, sliding=True).lifetime(100, "n") == Lifetime(110, None, 10)
    assert Retention(stale_while_revalidate=5, sliding=True).lifetime(100, "n") == Lifetime()


def test_a_namespace_may_have_a_quota_of_its_own() -> None:
    """A quota is one number for every namespace or by name, and separate from the whole cache's."""
    assert Retention(max_entries=9).quota_of("n") is None
    assert Retention(namespace_max_entries=3).quota_of("n") == Quota(3)
    some = Retention(namespace_max_bytes={"n": 7})
    assert some.quota_of("n") == Quota(None, 7)
    assert some.quota_of("m") is None
    assert some.quota is None


@given(st.integers(1, 500), st.integers(0, 2000))
def test_eviction_brings_the_count_under_the_quota(quota: int, entries: int) -> None:
    """An eviction frees what is needed and little more, but never the last entry."""
    excess = Quota(quota).excess(entries, 0)
    if entries <= quota:
        assert excess <= 0
    else:
        assert 0 < entries - excess <= quota
        assert excess <= entries - quota + quota // 100


@pytest.mark.parametrize(
    "options",
    [
        {"max_entries": 0},
        {"max_bytes": -5},
        {"max_entries": 1.5},
        {"eviction": "random"},
        {"namespace_max_entries": 0},
        {"namespace_max_bytes": {"n": -1}},
        {"stale_while_revalidate": -1},
    ],
)
def test_wrong_quotas_are_refused(options: dict[str, Any]) -> None:
    """A quota must be a whole number above 0, and an eviction policy a known one."""
    with pytest.raises(ConfigError):
        Retention(**options)
