"""A cache in a directory: SQLite is the truth, FAISS is derived from it."""

from semcache.backends.local.backend import LocalBackend, LocalKind
from semcache.backends.local.opening import LocalOptions

__all__ = ["LocalBackend", "LocalKind", "LocalOptions"]
