"""The router: a request to whichever provider is to answer it, with all that can go wrong."""

from semcache.router.router import Router
from semcache.router.steps import Timeouts

__all__ = ["Router", "Timeouts"]
