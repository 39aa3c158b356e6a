"""Every error that semcache raises, in one tree.

::

    Exception
    └── SemcacheError
        ├── RequestError (also a ValueError)    a prompt, message or argument cannot be used
        ├── ConfigError (also a ValueError)     a setting is wrong or contradicts another
        ├── StoreError                          the database cannot be opened, read or written
        │   └── StoreVersionError               ... because a newer semcache wrote it
        ├── IndexMismatchError                  the cache was built with another embedding model
        └── EmbedderError                       the embedding model failed or is not to be had

A message says what is wrong, where, and what to do about it. Faults of the cache
itself never reach a caller of `lookup`, `record` or a decorated function: they
become a miss and a `FaultEvent`. These errors are raised where the caller's
input is at fault, and where a person asked for something that cannot be done.
"""

from __future__ import annotations


class SemcacheError(Exception):
    """The base of every error that semcache raises on purpose."""


class RequestError(SemcacheError, ValueError):
    """A prompt, a message or an argument cannot be turned into a request."""


class ConfigError(SemcacheError, ValueError):
    """A setting has a value that semcache cannot work with."""


class StoreError(SemcacheError):
    """The database cannot be opened, read or written."""


class StoreVersionError(StoreError):
    """The database was written by a newer semcache than this one."""


class IndexMismatchError(SemcacheError):
    """The stored vectors come from another embedding model than the one given.

    Attributes:
        stored: fingerprint of the embedder whose vectors the cache holds.
        given: fingerprint of the embedder that was to be used now.
    """

    def __init__(self, *, stored: str, given: str, where: str) -> None:
        self.stored = stored
        self.given = given
        super().__init__(
            f"{where} holds vectors of the embedder {stored!r}, but {given!r} was given. "
            "Vectors of two models are never mixed: open the cache with the first, or run "
            f"`semcache reembed --cache {where}` to embed every stored question anew."
        )


class EmbedderError(SemcacheError):
    """The embedding model failed, is missing, or gave vectors that cannot be used."""
