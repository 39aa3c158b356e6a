"""Where a FAISS index comes from and goes to: a snapshot beside the database."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from semcache.protocols import Store

if TYPE_CHECKING:
    from semcache.indexes.faiss import FaissIndex

logger = logging.getLogger("semcache")


class FaissFiles:
    """Makes `FaissIndex`es; FAISS itself is not imported before the first.

    Args:
        path: the snapshot's file.
        exact_below: see `FaissIndex`; None: its default.
        background: see `FaissIndex`.
    """

    def __init__(
        self, path: Path, *, exact_below: int | None = None, background: bool = True
    ) -> None:
        self.path = path
        self._exact_below = exact_below
        self._background = background

    def new(self, dimension: int) -> FaissIndex:
        make, exact_below = self._maker()
        return make(dimension, exact_below=exact_below, background=self._background)

    def load(
        self, store: Store, fingerprint: str, dimension: int
    ) -> tuple[FaissIndex, int, int] | None:
        from semcache.indexes.snapshot import Facts, SnapshotError

        if not self.path.exists():
            return None
        make, exact_below = self._maker()
        position = store.position()
        expected = Facts(position.store_id, fingerprint, position.last_id, position.last_deletion)
        try:
            index, found = make.load(
                self.path,
                expected,
                dimension,
                exact_below=exact_below,
                background=self._background,
            )
        except SnapshotError as error:
            logger.warning("%s; the index is rebuilt from the database", error)
            return None
        return index, found.last_id, found.last_deletion

    def save(self, index: FaissIndex, store: Store, fingerprint: str, at: tuple[int, int]) -> None:
        from semcache.indexes.snapshot import Facts

        index.save(self.path, Facts(store.meta("store_id") or "", fingerprint, *at))

    def _maker(self) -> tuple[type[FaissIndex], int]:
        from semcache.indexes.faiss import FaissIndex
        from semcache.indexes.partition import EXACT_BELOW

        return FaissIndex, EXACT_BELOW if self._exact_below is None else self._exact_below
