"""Commands that carry entries out of a cache and into one: export, import, backup, restore."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from semcache.assembly.embedding import choose_embedder
from semcache.backends.local.opening import DATABASE, open_repository, open_store
from semcache.cli.common import (
    CachePath,
    EmbedderName,
    Model,
    Namespace,
    Tag,
    console,
    directory,
    named,
    progress,
    store,
)
from semcache.embedders.base import Embedder
from semcache.errors import RequestError
from semcache.types import Selection


def export(
    file: Annotated[Path, typer.Argument(help="Where to; - for standard output.")] = Path("-"),
    cache: CachePath = None,
    namespace: Namespace = None,
    model: Model = None,
    tag: Tag = None,
) -> None:
    """Write entries as JSON Lines, vectors included."""
    from semcache.tools.transfer import export_lines

    count = -1
    with store(cache) as opened, progress("exporting") as bar:
        total = opened.count(Selection(namespace, model, tag))
        out = sys.stdout if str(file) == "-" else file.open("w", encoding="utf-8")
        try:
            for count, line in enumerate(export_lines(opened, Selection(namespace, model, tag))):
                out.write(line + "\n")
                bar(count, total)
        finally:
            if out is not sys.stdout:
                out.close()
    console(stderr=True).print(f"exported {count:,} entries")


def import_(
    file: Annotated[Path, typer.Argument(help="An export; - for standard input.")],
    cache: CachePath = None,
    embedder_name: EmbedderName = None,
) -> None:
    """Store the entries of an export, each in place of one for the same request."""
    import time

    from semcache.backends.retention import Retention
    from semcache.tools.transfer import import_lines

    if str(file) != "-" and not file.exists():
        raise RequestError(f"There is no file {file}.")
    opened = open_store(directory(cache))
    known = opened.meta("fingerprint")  # whose vectors it takes as they are

    def chosen() -> Embedder:
        return choose_embedder(embedder_name, opened)

    repository = open_repository(
        directory(cache),
        opened,
        fingerprint=lambda: known or chosen().fingerprint,
        retention=Retention(),
        clock=time.time,
    )
    try:
        with progress("importing") as bar:
            source = sys.stdin if str(file) == "-" else file.open(encoding="utf-8")
            with source as lines:
                count = import_lines(lines, repository, chosen, bar)
    finally:
        repository.close()
    typer.echo(f"imported {count:,} entries")


def backup(
    to: Annotated[
        Path,
        typer.Argument(
            metavar="DIRECTORY", parser=named, help="A directory that holds no cache yet."
        ),
    ],
    cache: CachePath = None,
) -> None:
    """Copy a cache as it is at one moment, while it is in use."""
    from semcache.backends.local.backups import backup as copy

    with progress("copying") as bar:
        count = copy(directory(cache), to, bar)
    typer.echo(f"{count:,} entries are in {to}")


def restore(
    source: Annotated[
        Path, typer.Argument(metavar="DIRECTORY", parser=named, help="The directory of a backup.")
    ],
    cache: CachePath = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Put a backup in place of a cache; programs that have it open go on with it."""
    from semcache.backends.local.backups import database_of
    from semcache.backends.local.backups import restore as put_back

    where = directory(cache)
    database_of(source)  # before anything is asked
    if (where / DATABASE).exists() and not yes:
        with store(cache) as opened:
            count = opened.totals()[0]
        typer.confirm(f"Replace the {count:,} entries of {where}?", abort=True)
    with progress("copying") as bar:
        count = put_back(source, where, bar)
    typer.echo(f"{count:,} entries are in {where}")


COMMANDS = (export, import_, backup, restore)
