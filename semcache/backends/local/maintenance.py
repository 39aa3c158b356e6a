"""Work on a whole cache: checking it, embedding it anew, searching all of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from semcache.backends.local.opening import DATABASE, SNAPSHOT, open_repository
from semcache.backends.local.sqlite.store import SQLiteStore
from semcache.backends.retention import Retention
from semcache.backends.vectors import cosine
from semcache.embedders.base import Embedder
from semcache.keys import keys
from semcache.types import Candidate, Selection

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from semcache.backends.local.faiss.index import FaissIndex
    from semcache.backends.local.repository import Repository

Progress = Callable[[int, int], None]
"""Told (done, all) as work goes on."""

_BATCH = 256


def _silent(done: int, total: int) -> None:
    """Says nothing."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a check found. `problems` is empty for a sound cache."""

    entries: int
    vectors: int
    without_vector: int
    scopes: int
    embedder: str | None
    key_versions: dict[int, int]
    problems: list[str]
    mended: list[str] = field(default_factory=list)


def stored_repository(directory: Path, store: SQLiteStore) -> Repository[FaissIndex]:
    """The repository of a store, with the embedder that the store names (none is loaded)."""
    import time

    fingerprint = store.meta("fingerprint") or ""
    return open_repository(
        directory,
        store,
        fingerprint=lambda: fingerprint,
        retention=Retention(),
        clock=time.time,
        background=False,
    )


def check(directory: Path, store: SQLiteStore, *, fix: bool = False) -> Report:
    """Hold the index against the store and the store against its own rules.

    Args:
        fix: mend what can be mended without losing an entry: orphaned rows, wrong totals,
            an index that differs from the store.
    """
    problems = store.problems()
    mended = []
    if problems and fix:
        store.mend()
        left = store.problems()
        mended += [problem for problem in problems if problem not in left]
    repository = stored_repository(directory, store)
    if (reason := unusable_snapshot(directory, store)) is not None:
        problems.append(reason)
        if fix:
            (directory / SNAPSHOT).unlink(missing_ok=True)
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
    return Report(
        entries=entries,
        vectors=len(embedded),
        without_vector=entries - len(embedded),
        scopes=index.scopes(),
        embedder=store.meta("fingerprint"),
        key_versions=versions,
        problems=[problem for problem in problems if problem not in mended],
        mended=mended,
    )


def rescue(
    directory: Path,
    *,
    fix: bool,
    progress: Callable[[int], None] = lambda done: None,  # noqa: ARG005
) -> list[str]:
    """What is wrong with a database that SQLite cannot read, or what was done about it.

    Args:
        fix: save what can be read; nobody else may have the cache open.
        progress: told how many rows are saved.

    Raises:
        StoreError: it could not be mended, and is as it was.
    """
    from semcache.backends.local.faiss.snapshot import peek
    from semcache.backends.local.sqlite.recovery import damaged, salvage

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
    saved = salvage(database, progress, known=known)
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
        Facts,
        OtherSnapshotError,
        SnapshotError,
        load,
    )

    path = directory / SNAPSHOT
    if not path.exists():
        return None
    at = store.position()
    try:
        load(path, Facts.of(at, at.fingerprint), at.dimension)
    except OtherSnapshotError:
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


def reembed(store: SQLiteStore, embedder: Embedder, progress: Progress = _silent) -> int:
    """Embed every stored question anew and put the vectors in place in one step.

    The cache can be used meanwhile. A run that was interrupted is gone on with, not begun
    anew. Returns how many vectors there are now.

    Raises:
        EmbedderError: the embedder failed; what was done so far is kept for the next run.
    """
    store.begin_reembedding(embedder.fingerprint, embedder.dimension)
    while True:
        batch = store.questions_to_embed(_BATCH)
        if not batch and store.finish_reembedding():
            return len(store.embedded_ids())
        fitting = [row for row in batch if _fits(embedder, row[2])]
        vectors = embedder.embed([row[2] for row in fitting]) if fitting else ()
        made = {row[0]: store.blob(vector) for row, vector in zip(fitting, vectors, strict=True)}
        store.keep_reembedded((row[0], row[1], made.get(row[0])) for row in batch)
        left = store.count_to_embed()
        progress(store.count() - left, store.count())


def _fits(embedder: Embedder, question: str) -> bool:
    return embedder.window is None or embedder.count_tokens(question) <= embedder.window


def search(
    store: SQLiteStore, embedder: Embedder, text: str, *, namespace: str | None, limit: int
) -> list[Candidate]:
    """The nearest stored questions in all scopes, for people to look at.

    Raises:
        EmbedderError: the embedder failed.
    """
    wanted = embedder.embed([text])[0]
    allowed = None
    if namespace is not None:
        allowed = {entry.id for entry in store.select(Selection(namespace=namespace))}
    found: list[tuple[float, int]] = []
    for entry_id, _, blob in store.vectors_after(0):
        similarity = cosine(blob, wanted) if allowed is None or entry_id in allowed else None
        if similarity is not None:
            found.append((similarity, entry_id))
            if len(found) > 100 * limit:
                found = sorted(found, reverse=True)[:limit]
    nearest = sorted(found, reverse=True)[:limit]
    entries = store.get_many([entry_id for _, entry_id in nearest])
    return [Candidate(entries[i], similarity) for similarity, i in nearest if i in entries]
