"""SHA-256 of short texts, as fast when it is the first thing for a while as in a loop."""

from __future__ import annotations

import hashlib
from typing import Any

# The interpreter's own, which `hashlib` hides behind OpenSSL's: that one is made for much data,
# and takes three times as long to begin (`random` in the standard library takes this way, too).
_own: Any
try:
    from _sha2 import sha256 as _own  # type: ignore[import-not-found, no-redef]
except ImportError:
    try:
        from _sha256 import sha256 as _own  # type: ignore[import-not-found, no-redef]
    except ImportError:
        _own = hashlib.sha256
_SHORT = 1024


def sha256(data: bytes) -> bytes:
    """32 bytes."""
    digest: bytes = (_own if len(data) <= _SHORT else hashlib.sha256)(data).digest()
    return digest
