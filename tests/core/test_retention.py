from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcache.core.retention import Retention, seconds
from semcache.errors import ConfigError


@pytest.mark.parametrize("ttl", [-1, -0.001, timedelta(seconds=-1), float("nan"), "60", True])
def test_a_ttl_that_is_none_is_refused(ttl: Any) -> None:
    """Below zero, no number: an error that says what a TTL is."""
    with pytest.raises(ConfigError, match="ttl is"):
        seconds(ttl)


def test_the_nearest_rule_for_a_ttl_wins() -> None:
    """Call before namespace before default; None means for ever."""
    rules = Retention(ttl=10, namespace_ttl={"news": 5, "laws": None})
    assert rules.expires_at(100, "other") == 110
    assert rules.expires_at(100, "news") == 105
    assert rules.expires_at(100, "laws") is None
    assert rules.expires_at(100, "laws", timedelta(minutes=1)) == 160
    assert rules.expires_at(100, "news", None) is None


@given(st.integers(1, 500), st.integers(0, 2000))
def test_eviction_brings_the_count_under_the_quota(quota: int, entries: int) -> None:
    """As many go as is needed and little more, and never the last one."""
    excess = Retention(max_entries=quota).excess(entries, 0)
    if entries <= quota:
        assert excess <= 0
    else:
        assert 0 < entries - excess <= quota
        assert excess <= entries - quota + quota // 100


@pytest.mark.parametrize(
    "options", [{"max_entries": 0}, {"max_bytes": -5}, {"max_entries": 1.5}, {"eviction": "random"}]
)
def test_wrong_quotas_are_refused(options: dict[str, Any]) -> None:
    """A quota is a whole number above 0; an eviction policy is one of the table."""
    with pytest.raises(ConfigError):
        Retention(**options)
