"""What is particular to the backend in memory."""

from __future__ import annotations

import threading

from semcache.backends.memory.backend import MemoryBackend


def test_a_fork_goes_on_without_a_lock_that_it_did_not_get() -> None:
    """A thread that keeps the store locked holds a fork up for a second, and breaks nothing."""
    backend = MemoryBackend()
    locked, done = threading.Event(), threading.Event()

    def keep_locked() -> None:
        with backend.store.lock:
            locked.set()
            done.wait(30)

    thread = threading.Thread(target=keep_locked)
    thread.start()
    assert locked.wait(10)
    backend.hold()
    backend.let_go()
    done.set()
    thread.join()
    backend.hold()
    assert not _free(backend), "the next fork does get it"
    backend.let_go()
    assert _free(backend)


def _free(backend: MemoryBackend) -> bool:
    """Whether another thread could lock the store."""
    found: list[bool] = []

    def try_to_lock() -> None:
        found.append(backend.store.lock.acquire(blocking=False))
        if found[0]:
            backend.store.lock.release()

    thread = threading.Thread(target=try_to_lock)
    thread.start()
    thread.join()
    return found[0]
