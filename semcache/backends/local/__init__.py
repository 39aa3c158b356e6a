"""A cache in a directory: a SQLite database, and a FAISS index derived from it."""

from semcache.backends.local.backend import LocalBackend, LocalKind
from semcache.backends.local.opening import LocalOptions

__all__ = ["LocalBackend", "LocalKind", "LocalOptions"]
