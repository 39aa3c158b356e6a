"""A cache in the memory of one process."""

from semcache.backends.memory.backend import MemoryBackend, MemoryKind

__all__ = ["MemoryBackend", "MemoryKind"]
