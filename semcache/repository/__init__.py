"""Store and index as one thing."""

from semcache.repository.entries import Repository, TooLargeError
from semcache.repository.following import IndexFiles, NotReadyError

__all__ = ["IndexFiles", "NotReadyError", "Repository", "TooLargeError"]
