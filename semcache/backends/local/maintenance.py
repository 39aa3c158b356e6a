"""Checks, repairs and re-embeds a whole cache directory."""

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
"""Questions embedded at once."""


class LocalMaintenance:
    """The `Maintenance` of a cache directory."""

    def __init__(self, backend: LocalBackend) -> None:
        self._directory = backend.directory
        self._store = backend.store
        self._backend = backend

    def check(self, *, fix: bool = False) -> CheckReport:
        """Check the consistency of the store, and of the index with the store.

        Args:
            fix: correct totals, rebuild an index that differs from the store, and delete orphaned
                rows, malformed vectors, damaged entries, and entries with a wrong exact key.
        """
        store = self._store
        problems = store.problems()
        mended = []
        if problems and fix:
            store.mend()
            remaining = store.problems()
            mended += [problem for problem in problems if problem not in remaining]
        planted = store.planted()
        problems += planted
        if planted and fix:
            store.delete_planted()
            mended += [problem for problem in planted if problem not in store.planted()]
        repository = self._repository()
        if (reason := unusable_snapshot(self._directory, store)) is not None:
            problems.append(reason)
            if fix:
                (self._directory / SNAPSHOT).unlink(missing_ok=True)
                mended.append(reason)
        embedded = store.embedded_ids()
        index = repository.refresh_index()
        difference = _difference(index.ids(), embedded)
        if difference:
            problems.append(difference)
        if fix and difference:
            index = repository.rebuild_index()
            if not _difference(index.ids(), embedded):
                mended.append(difference)
        if fix:
            repository.save_snapshot()
        versions = store.key_versions()
        problems += [
            f"{count} entries have exact keys of version {version}, which the exact tier can no "
            f"longer find (this semcache uses version {keys.KEY_VERSION})"
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
        """See `Maintenance.vacuum`."""
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
            fitting = [row for row in batch if not row[3] and _fits(embedder, row[2])]
            vectors = embedder.embed([row[2] for row in fitting]) if fitting else ()
            blobs = {
                row[0]: store.blob(vector) for row, vector in zip(fitting, vectors, strict=True)
            }
            store.keep_reembedded((row[0], row[1], blobs.get(row[0])) for row in batch)
            remaining = store.count_to_embed()
            progress(store.count() - remaining, store.count())

    def _repository(self) -> Repository[FaissIndex]:
        """The store with its index; uses the stored fingerprint, so that no embedder is loaded."""
        fingerprint = self._store.meta("fingerprint") or ""
        return self._backend.repository(
            fingerprint=lambda: fingerprint,
            retention=Retention(),
            clock=time.time,
            fault=_ignored,
        )


def _ignored(where: str, error: BaseException) -> None:
    """Faults need not be reported: the check itself finds what is wrong."""


def _fits(embedder: Embedder, question: str) -> bool:
    return embedder.window is None or embedder.count_tokens(question) <= embedder.window


def recover_directory(directory: Path, *, fix: bool, progress: Progress) -> list[str]:
    """Report what is wrong with a database that SQLite cannot read, or recover it.

    Returns lines of text; an empty list if the database is readable.

    Args:
        fix: recover what can be read, and report what was done. No other process may have the
            cache open.
        progress: called with the number of rows recovered so far; the total is unknown.

    Raises:
        StoreError: the database could not be recovered, and is unchanged.
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
    snapshot = peek(directory / SNAPSHOT)
    known = None if snapshot is None else (snapshot[0].fingerprint, snapshot[1])
    report = recover(database, lambda done: progress(done, 0), known=known)
    rows = report.rows
    lost = "an unknown number of" if report.lost is None else f"{report.lost:,}"
    lines = [
        f"{database} was damaged: {problem}",
        f"saved {rows['entries']:,} entries and {rows['embeddings']:,} vectors; {lost} entries "
        f"could not be read. The damaged file was kept as {report.kept_at}",
    ]
    if "tags" in report.incomplete:
        lines.append("some tags may be lost: invalidate(tag=...) may miss recovered entries")
    if rows["embeddings"] < rows["entries"]:
        lines.append("some entries have lost their vector; `semcache reembed` makes new vectors")
    return lines


def unusable_snapshot(directory: Path, store: SQLiteStore) -> str | None:
    """Why the snapshot of the index cannot be used; None if it can, or if there is none."""
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
        return None  # not an error: it is rebuilt, as after a change of embedder or version
    except SnapshotError as error:
        return f"{path} cannot be used: {error}"
    return None


def _difference(indexed: NDArray[np.int64], embedded: NDArray[np.int64]) -> str:
    import numpy as np

    missing = len(np.setdiff1d(embedded, indexed, assume_unique=True))
    extra = len(np.setdiff1d(indexed, embedded, assume_unique=True))
    if not missing and not extra:
        return ""
    return f"the index lacks {missing} vectors of the store and has {extra} that the store lacks"
