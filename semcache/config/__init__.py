"""Settings, feature flags, and what other packages register. Names are imported on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from semcache.lazy import lazy_names

if TYPE_CHECKING:
    from semcache.config.flags import Flags
    from semcache.config.settings import Settings, load

__all__ = ["Flags", "Settings", "load"]

_HOMES = {"Flags": "flags", "Settings": "settings", "load": "settings"}


__getattr__ = lazy_names(__name__, _HOMES)
