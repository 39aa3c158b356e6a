"""Which tables, indexes and triggers the database of a cache may have.

A trigger, view or generated column added by somebody else could change what is served, so a backup
is only restored if every part of its schema was created by some version of semcache.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path

from semcache.backends.local.sqlite.database import read_only
from semcache.backends.local.sqlite.migrations import states
from semcache.backends.local.sqlite.orders import eviction_indexes

_ROWS = "SELECT type, name, coalesce(sql, '') FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"


def unknown_parts(database: Path) -> list[str]:
    """Names of the parts of a schema that no version of semcache created, for messages.

    Raises:
        sqlite3.Error: the file cannot be read.
    """
    known = _known()
    with closing(read_only(database)) as connection:
        return [
            f"the {kind} {name!r:.60}"
            for kind, name, sql in connection.execute(_ROWS)
            if (kind, name, _normalised(sql)) not in known
        ]


@cache
def _known() -> frozenset[tuple[str, str, str]]:
    """(type, name, statement) of every part that a migration or a quota creates."""
    found = set()
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        for _ in _states_and_indexes(connection):
            rows = connection.execute(_ROWS).fetchall()
            found |= {(kind, name, _normalised(sql)) for kind, name, sql in rows}
    return frozenset(found)


def _states_and_indexes(connection: sqlite3.Connection) -> Iterator[object]:
    """Bring a database to each state of the schema in turn, and then create what quotas create."""
    yield from states(connection)
    for index in eviction_indexes():
        connection.execute(index.statement)
    yield None


def _normalised(sql: str) -> str:
    """A statement without its quotes and white space, which differ between versions of SQLite."""
    return re.sub(r"[\s\"'`\[\]]+", "", sql).lower()
