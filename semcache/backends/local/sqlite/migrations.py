"""The schema of the database, as named migrations; each is one transaction.

A file records its schema version twice. sqlite-utils stores the names of the migrations that ran,
and `PRAGMA user_version` their number: a file that is up to date opens without importing
sqlite-utils, and a file from a newer semcache is recognised before anything is changed.

Triggers log deletions for the indexes of other processes and keep `totals` up to date, so that both
are right whoever changes the rows, even a person in the sqlite3 shell.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from semcache.errors import StoreVersionError
from semcache.keys.keys import exact_key

if TYPE_CHECKING:
    from sqlite_utils import Database, Migrations
    from sqlite_utils.db import Table

SCHEMA_VERSION = 4


def migrate(connection: sqlite3.Connection, where: str, *, patience: float) -> None:
    """Migrate the database to `SCHEMA_VERSION`.

    Several processes may do this at once: each migration is a transaction, one process wins, and
    the others retry for at most `patience` seconds.

    Raises:
        StoreVersionError: a newer semcache wrote the file. Nothing was changed.
        sqlite3.Error: the file cannot be read or written.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            return _migrate(connection, where)
        except sqlite3.OperationalError as error:
            transient = (
                "locked", "busy", "already exists", "duplicate column", "schema has changed"
            )  # fmt: skip
            if time.monotonic() > deadline or not any(word in str(error) for word in transient):
                raise
            time.sleep(0.02)


def _migrate(connection: sqlite3.Connection, where: str) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == SCHEMA_VERSION:
        return
    if version > SCHEMA_VERSION:
        raise StoreVersionError(
            f"{where} has schema {version}, but this semcache supports schemas up to "
            f"{SCHEMA_VERSION}. Upgrade semcache, or give this version another directory. "
            "Nothing was changed."
        )
    from sqlite_utils import Database

    connection.execute("PRAGMA journal_mode=WAL")
    database = Database(connection)
    _migrations().apply(database)
    connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")


def states(connection: sqlite3.Connection) -> Iterator[str]:
    """Apply the migrations to an empty database, one by one; yields the name of each."""
    from sqlite_utils import Database

    database, migrations = Database(connection), _migrations()
    names = [migration.name for migration in migrations.pending(database)]
    for name, following in zip(names, [*names[1:], None], strict=True):
        migrations.apply(database, stop_before=following)
        yield name
    connection.execute(  # exists while a cache is being re-embedded
        "CREATE TABLE embeddings_next (entry_id INTEGER PRIMARY KEY, scope BLOB, vector BLOB)"
    )
    yield "embeddings_next"


def _migrations() -> Migrations:
    from sqlite_utils import Migrations

    migrations = Migrations("semcache")

    @migrations(name="0001_entries")
    def entries(db: Database) -> None:
        """Entries, their vectors and tags, counters, and the log of deletions."""
        db.execute(
            # AUTOINCREMENT: ids are never reused, so that a reader that has seen all entries
            # up to some id only needs to read larger ones.
            "CREATE TABLE entries ("
            " id INTEGER PRIMARY KEY AUTOINCREMENT,"
            " exact_key BLOB NOT NULL UNIQUE,"
            " scope BLOB NOT NULL,"
            " namespace TEXT NOT NULL,"
            " model TEXT NOT NULL,"
            " question TEXT,"
            " summary TEXT NOT NULL,"
            " text TEXT NOT NULL,"
            " extra TEXT,"
            " prompt_tokens INTEGER,"
            " completion_tokens INTEGER,"
            " cost_usd REAL,"
            " key_version INTEGER NOT NULL,"
            " created_at REAL NOT NULL,"
            " expires_at REAL,"
            " last_hit_at REAL,"
            " hits INTEGER NOT NULL DEFAULT 0,"
            " bytes INTEGER NOT NULL)"
        )
        table = cast("Table", db["entries"])
        table.create_index(["namespace", "model"])
        db.execute(
            "CREATE INDEX entries_expiry ON entries(expires_at) WHERE expires_at IS NOT NULL"
        )
        _create(db, "embeddings", {"entry_id": int, "scope": bytes, "vector": bytes}, "entry_id")
        _create(db, "tags", {"tag": str, "entry_id": int}, ("tag", "entry_id"))
        cast("Table", db["tags"]).create_index(["entry_id"])
        _create(db, "meta", {"name": str, "value": str}, "name")
        db.execute("INSERT INTO meta VALUES ('store_id', lower(hex(randomblob(16))))")
        _create(db, "counters", {"name": str, "value": float}, "name")
        _create(db, "totals", {"id": int, "entries": int, "bytes": int}, "id")
        db.execute("INSERT INTO totals VALUES (1, 0, 0)")
        db.execute(
            "CREATE TABLE deletions (sequence INTEGER PRIMARY KEY AUTOINCREMENT,"
            " entry_id INTEGER NOT NULL)"
        )
        db.execute(
            "CREATE TRIGGER entry_added AFTER INSERT ON entries BEGIN"
            " UPDATE totals SET entries = entries + 1, bytes = bytes + new.bytes; END"
        )
        db.execute(
            "CREATE TRIGGER entry_deleted AFTER DELETE ON entries BEGIN"
            " DELETE FROM embeddings WHERE entry_id = old.id;"
            " DELETE FROM tags WHERE entry_id = old.id;"
            " INSERT INTO deletions(entry_id) VALUES (old.id);"
            " UPDATE totals SET entries = entries - 1, bytes = bytes - old.bytes; END"
        )

    @migrations(name="0002_observations")
    def observations(db: Database) -> None:
        """Labels, and served hits that can be reviewed."""
        db.execute(
            "CREATE TABLE observations ("
            " id INTEGER PRIMARY KEY AUTOINCREMENT,"
            " at REAL NOT NULL,"
            " writer TEXT NOT NULL,"
            " kind TEXT NOT NULL,"
            " namespace TEXT NOT NULL,"
            " entry_id INTEGER NOT NULL,"
            " other_id INTEGER,"
            " right INTEGER NOT NULL,"
            " expected REAL NOT NULL,"
            " features TEXT NOT NULL)"
        )
        db.execute(
            "CREATE TABLE serves ("
            " id TEXT PRIMARY KEY,"
            " at REAL NOT NULL,"
            " namespace TEXT NOT NULL,"
            " entry_id INTEGER NOT NULL,"
            " question TEXT NOT NULL,"
            " similarity REAL NOT NULL,"
            " chance REAL NOT NULL,"
            " features TEXT NOT NULL,"
            " verdict INTEGER) WITHOUT ROWID"
        )
        cast("Table", db["serves"]).create_index(["at"])
        cast("Table", db["serves"]).create_index(["entry_id"])
        db.execute(
            "CREATE TRIGGER served_entry_deleted AFTER DELETE ON entries BEGIN"
            " DELETE FROM serves WHERE entry_id = old.id; END"
        )

    @migrations(name="0003_lifetimes")
    def lifetimes(db: Database) -> None:
        """Sliding TTLs, stale entries, and totals by namespace."""
        for column in ("stale_at", "sliding"):
            db.execute(f"ALTER TABLE entries ADD COLUMN {column} REAL")
        db.execute(
            "CREATE TABLE namespaces (namespace TEXT PRIMARY KEY, entries INTEGER NOT NULL,"
            " bytes INTEGER NOT NULL) WITHOUT ROWID"
        )
        db.execute(
            "INSERT INTO namespaces SELECT namespace, count(*), sum(bytes) FROM entries"
            " GROUP BY namespace"
        )
        # No upsert: inside a trigger, the outer statement's OR REPLACE would override it.
        db.execute(
            "CREATE TRIGGER entry_added_to_namespace AFTER INSERT ON entries BEGIN"
            " INSERT INTO namespaces SELECT new.namespace, 0, 0"
            "  WHERE NOT EXISTS (SELECT 1 FROM namespaces WHERE namespace = new.namespace);"
            " UPDATE namespaces SET entries = entries + 1, bytes = bytes + new.bytes"
            "  WHERE namespace = new.namespace; END"
        )
        db.execute(
            "CREATE TRIGGER entry_deleted_from_namespace AFTER DELETE ON entries BEGIN"
            " UPDATE namespaces SET entries = entries - 1, bytes = bytes - old.bytes"
            "  WHERE namespace = old.namespace;"
            " DELETE FROM namespaces WHERE namespace = old.namespace AND entries <= 0; END"
        )

    @migrations(name="0004_comparisons")
    def comparisons(db: Database) -> None:
        """Pending comparisons; whether a judge was unsure; exact keys of version 2."""
        for column in ("unsure", "equal"):
            db.execute(f"ALTER TABLE observations ADD COLUMN {column} INTEGER NOT NULL DEFAULT 0")
        db.execute(
            "CREATE TABLE comparisons ("
            " id INTEGER PRIMARY KEY AUTOINCREMENT,"
            " kind TEXT NOT NULL,"
            " namespace TEXT NOT NULL,"
            " question TEXT NOT NULL,"
            " entry_id INTEGER NOT NULL,"
            " text TEXT NOT NULL,"
            " extra TEXT,"
            " other_id INTEGER,"
            " expected REAL NOT NULL,"
            " features TEXT NOT NULL)"
        )
        db.execute("CREATE INDEX comparisons_entry ON comparisons(entry_id)")
        db.execute(
            "CREATE TRIGGER compared_entry_deleted AFTER DELETE ON entries BEGIN"
            " DELETE FROM comparisons WHERE entry_id = old.id; END"
        )
        db.register_function(exact_key, deterministic=True, name="upgraded_key")
        db.execute(
            "UPDATE OR IGNORE entries"
            " SET exact_key = upgraded_key(scope, question), key_version = 2 WHERE key_version = 1"
        )

    return migrations


def _create(db: Database, name: str, columns: dict[str, Any], pk: Any) -> None:
    cast("Table", db[name]).create(columns, pk=pk)
