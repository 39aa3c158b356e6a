"""SHA-256 that is fast for short texts."""

from __future__ import annotations

import hashlib
from typing import Any

# The interpreter's own implementation, which `hashlib` hides behind OpenSSL's. OpenSSL's is made
# for large inputs and takes three times as long to start. (`random` imports it in this way, too.)
_builtin_sha256: Any
try:
    from _sha2 import sha256 as _builtin_sha256  # type: ignore[import-not-found, no-redef]
except ImportError:
    try:
        from _sha256 import sha256 as _builtin_sha256  # type: ignore[import-not-found, no-redef]
    except ImportError:
        _builtin_sha256 = hashlib.sha256
_SHORT = 1024


def sha256(data: bytes) -> bytes:
    """The digest, 32 bytes."""
    digest: bytes = (_builtin_sha256 if len(data) <= _SHORT else hashlib.sha256)(data).digest()
    return digest
