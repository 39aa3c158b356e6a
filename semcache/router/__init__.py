"""The router: sends a request to the right provider and handles its failures.

Names are imported on first use, so that code that only needs a price or a rate limit does
not load an HTTP client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from semcache.lazy import lazy_names

if TYPE_CHECKING:
    from semcache.router.rate_limits import Limit
    from semcache.router.resilience import BreakerRules, Retry
    from semcache.router.router import Router
    from semcache.router.routing import Route, Target
    from semcache.router.steps import Timeouts

__all__ = ["BreakerRules", "Limit", "Retry", "Route", "Router", "Target", "Timeouts"]

_HOMES = {
    "BreakerRules": "resilience",
    "Limit": "rate_limits",
    "Retry": "resilience",
    "Route": "routing",
    "Router": "router",
    "Target": "routing",
    "Timeouts": "steps",
}


__getattr__ = lazy_names(__name__, _HOMES)
