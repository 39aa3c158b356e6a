"""Work on a whole cache directory: checking it, repairing it, embedding it again."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from semcache.backends.base import CheckReport, Progress
from semcache.backends.local.opening import DATABASE, SNAPSHOT
from semcache.backends.retention import Retention
from semcache.embedders.base import Embedder
from semcache.keys import keys

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from semcache.backends.local.backend import LocalBackend
    from semcache.backends.local.faiss.index import FaissIndex
    from semcache.backends.local.repository import Repository
    from semcache.backends.local.sqlite.store import SQLiteStore

_BATCH = 256


class LocalMaintenance:
    """The `Maintenance` of a cache directory."""

    def __init__(self, backend: LocalBackend) -> None:
        self._directory = backend.directory
        self._store = backend.store
        self._backend = backend

    def check(self, *, fix: bool = False) -> CheckReport:
        """Compare the index with the store, and the store with its own rules.

        Args:
            fix: repair what can be repaired without losing an entry: orphaned rows, wrong totals,
                an index that differs from the store.
        """
        store = self._store
        problems = store.problems()
        mended = []
        if problems and fix:
            store.mend()
            left = store.problems()
            mended += [problem for problem in problems if problem not in left]
        repository = self._repository()
        if (reason := unusable_snapshot(self._directory, store)) is not None:
            problems.append(reason)
            if fix:
                (self._directory / SNAPSHOT).unlink(missing_ok=True)
                mended.append(reason)
        embedded = store.embedded_ids()
        index = repository.refresh_index()
        differs = _differences(index.ids(), embedded)
        if differs:
            problems.append(differs)
        if fix and differs:
            index = repository.rebuild_index()
            if not _differences(index.ids(), embedded):
                mended.append(differs)
        if fix:
            repository.save_snapshot()
        versions = store.key_versions()
        problems += [
            f"{count} entries were keyed under version {version} of the canonical form and can no "
            f"longer be found (this semcache uses {keys.KEY_VERSION})"
            for version, count in versions.items()
            if version != keys.KEY_VERSION
        ]
        entries = store.count()
        return CheckReport(
            entries=entries,
            vectors=len(embedded),
            without_vector=entries - len(embedded),
            scopes=index.scopes(),
            embedder=store.meta("fingerprint"),
            key_versions=versions,
            problems=[problem for problem in problems if problem not in mended],
            mended=mended,
        )

    def vacuum(self) -> tuple[int, int]:
        """Give the space of deleted entries back to the file system."""
        before = self._store.stored_bytes()
        self._store.vacuum()
        return before, self._store.stored_bytes()

    def reembed(self, embedder: Embedder, progress: Progress) -> int:
        """See `Maintenance.reembed`."""
        store = self._store
        store.begin_reembedding(embedder.fingerprint, embedder.dimension)
        while True:
            batch = store.questions_to_embed(_BATCH)
            if not batch and store.finish_reembedding():
                return len(store.embedded_ids())
            fitting = [row for row in batch if _fits(embedder, row[2])]
            vectors = embedder.embed([row[2] for row in fitting]) if fitting else ()
            made = {
                row[0]: store.blob(vector) for row, vector in zip(fitting, vectors, strict=True)
            }
            store.keep_reembedded((row[0], row[1], made.get(row[0])) for row in batch)
            left = store.count_to_embed()
            progress(store.count() - left, store.count())

    def _repository(self) -> Repository[FaissIndex]:
        """The store with its index, for the embedder that the store names (none is loaded)."""
        fingerprint = self._store.meta("fingerprint") or ""
        return self._backend.repository(
            fingerprint=lambda: fingerprint,
            retention=Retention(),
            clock=time.time,
            fault=_ignored,
        )


def _ignored(where: str, error: BaseException) -> None:
    """A check reports what is wrong by itself."""


def _fits(embedder: Embedder, question: str) -> bool:
    return embedder.window is None or embedder.count_tokens(question) <= embedder.window


def recover_directory(directory: Path, *, fix: bool, progress: Progress) -> list[str]:
    """What is wrong with a database that SQLite cannot read, or what was done about it.

    Args:
        fix: save what can be read; nobody else may have the cache open.
        progress: told how many rows are saved; the total is not known.

    Raises:
        StoreError: it could not be mended, and is as it was.
    """
    from semcache.backends.local.faiss.snapshot import peek
    from semcache.backends.local.sqlite.recovery import damaged, recover

    database = directory / DATABASE
    problem = damaged(database) if database.exists() else None
    if problem is None:
        return []
    if not fix:
        return [
            f"{database} is damaged: {problem}. Stop the programs that use it and run this with "
            "--fix, or restore a backup."
        ]
    kept = peek(directory / SNAPSHOT)
    known = None if kept is None else (kept[0].fingerprint, kept[1])
    saved = recover(database, lambda done: progress(done, 0), known=known)
    rows = saved.rows
    lost = "an unknown number of" if saved.lost is None else f"{saved.lost:,}"
    said = [
        f"{database} was damaged: {problem}",
        f"saved {rows['entries']:,} entries and {rows['embeddings']:,} vectors; {lost} entries "
        f"could not be read. The damaged file is kept: {saved.kept_at}",
    ]
    if "tags" in saved.incomplete:
        said.append("some tags may be lost: invalidate(tag=...) may miss entries of before")
    if rows["embeddings"] < rows["entries"]:
        said.append("entries that have lost their vector get a new one from: semcache reembed")
    return said


def unusable_snapshot(directory: Path, store: SQLiteStore) -> str | None:
    """What is wrong with the file of the index's snapshot; None: nothing, or there is none."""
    from semcache.backends.local.faiss.snapshot import (
        SnapshotError,
        SnapshotInfo,
        SnapshotMismatchError,
        load,
    )

    path = directory / SNAPSHOT
    if not path.exists():
        return None
    at = store.position()
    try:
        load(path, SnapshotInfo.of(at, at.fingerprint), at.dimension)
    except SnapshotMismatchError:
        return None  # it will be made anew, as after every change of embedder or version
    except SnapshotError as error:
        return f"{path} cannot be used: {error}"
    return None


def _differences(indexed: NDArray[np.int64], embedded: NDArray[np.int64]) -> str:
    import numpy as np

    missing = len(np.setdiff1d(embedded, indexed, assume_unique=True))
    extra = len(np.setdiff1d(indexed, embedded, assume_unique=True))
    if not missing and not extra:
        return ""
    return f"the index lacks {missing} vectors of the store and holds {extra} that it does not"
