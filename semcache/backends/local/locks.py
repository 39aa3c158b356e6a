"""A lock that an interruption cannot leave held.

`KeyboardInterrupt` may be raised as soon as `acquire` has returned, before its result is known. A
reentrant lock knows its owner, so the caller can then still ask it whether it was acquired.
"""

from __future__ import annotations

import threading
from typing import Any


class InterruptibleLock:
    """A lock of one thread at a time; the thread that holds it may acquire it again."""

    def __init__(self) -> None:
        self._lock: Any = threading.RLock()

    def acquire(self, *, blocking: bool = True, timeout: float = -1) -> bool:
        """Acquire the lock; False if that was not possible at once or in time.

        Args:
            timeout: seconds to wait; -1 means for ever.
        """
        before = self._lock._is_owned()
        try:
            acquired: bool = self._lock.acquire(blocking, timeout)
        except BaseException:
            if not before and self._lock._is_owned():
                self._lock.release()
            raise
        return acquired

    def release(self) -> None:
        self._lock.release()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
