"""Personal data in requests and answers: how it is found, and what happens to it."""

from __future__ import annotations

from semcache.privacy.personal import Privacy
from semcache.privacy.rules import found_by_rules

__all__ = ["Privacy", "found_by_rules"]
