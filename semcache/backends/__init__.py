"""Backends, which store the entries of a cache. `semcache.backends.base` is the contract."""

from semcache.backends.base import Backend
from semcache.backends.kinds import BackendKind
from semcache.backends.local.opening import LocalOptions
from semcache.backends.opening import open_backend
from semcache.backends.retention import Retention

__all__ = ["Backend", "BackendKind", "LocalOptions", "Retention", "open_backend"]
