"""Commands that copy entries into or out of a cache: warm, export, import, backup, restore."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copyfileobj
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Annotated

import typer

from semcache.backends.opening import backend_kind, open_backend
from semcache.cli.common import (
    NOTHING_FOUND,
    CachePath,
    EmbedderName,
    Model,
    Namespace,
    Tag,
    console,
    location,
    nonempty_path,
    open_existing,
    progress,
)
from semcache.cli.terminal import echo, visible_json
from semcache.engine.erasure import Copy, note_copy
from semcache.errors import RequestError
from semcache.private_files import text_to_write
from semcache.types import Selection

if TYPE_CHECKING:
    from semcache.embedders.base import Embedder


def export(
    file: Annotated[Path, typer.Argument(help="The file to write; - for standard output.")] = Path(
        "-"
    ),
    cache: CachePath = None,
    namespace: Namespace = None,
    model: Model = None,
    tag: Tag = None,
) -> None:
    """Write entries as JSON Lines, with their embeddings."""
    from semcache.tools.transfer import export_lines

    count = -1
    selection = Selection(namespace, model, tag)
    with open_existing(cache) as backend, progress("exporting") as bar:
        total = backend.catalogue.count(selection)
        out = sys.stdout if str(file) == "-" else text_to_write(file)
        try:
            for count, line in enumerate(export_lines(backend, selection)):
                out.write((visible_json(line) if out is sys.stdout else line) + "\n")
                bar(count, total)
        finally:
            if out is not sys.stdout:
                out.close()
        if out is not sys.stdout:
            note_copy(backend.metadata, Copy("export", str(file.resolve()), time.time()))
    console(stderr=True).print(f"exported {count:,} entries")


def import_(
    file: Annotated[Path, typer.Argument(help="The file to read; - for standard input.")],
    cache: CachePath = None,
    embedder_name: EmbedderName = None,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust",
            help="Take scopes and vectors as they are in the file. Whoever wrote it can then put "
            "answers under any question, of any namespace.",
        ),
    ] = False,
    reembed: Annotated[bool, typer.Option("--reembed", help="Embed every question again.")] = False,
    namespace: Annotated[
        str | None,
        typer.Option("--namespace", "-n", help="Put all entries into this namespace."),
    ] = None,
    skip_bad_lines: Annotated[
        bool,
        typer.Option("--skip-bad-lines", help="Skip lines that cannot be imported."),
    ] = False,
) -> None:
    """Store the entries of an export, replacing those for the same requests.

    Lines that this cache exported itself are taken as they are. Without --trust, questions of other
    lines are embedded again, and their scope may consist of a namespace and a model only.
    """
    from semcache.assembly.embedding import choose_embedder
    from semcache.backends.retention import Retention
    from semcache.keys.parse import name_of
    from semcache.tools.transfer import ImportOptions, import_lines

    if str(file) != "-" and not file.is_file():
        raise RequestError(f"There is no file {file}.")
    to = None if namespace is None else name_of(namespace, "namespace", "")
    options = ImportOptions(trust, reembed, to, skip_bad_lines)
    backend = open_backend(location(cache))
    stored_by = backend.embedder  # imported vectors of this embedder are stored unchanged

    def chosen() -> Embedder:
        return choose_embedder(embedder_name, backend)

    def fault(where: str, error: BaseException) -> None:
        console(stderr=True).print(f"{where}: {error}", markup=False)

    try:
        entries = backend.entries(
            fingerprint=lambda: stored_by or chosen().fingerprint,
            retention=Retention(),
            clock=time.time,
            fault=fault,
        )
        with progress("importing") as bar, _rereadable(file) as source:
            report = import_lines(
                lambda: _lines(source),
                entries,
                chosen,
                backend.metadata,
                fingerprint=stored_by,
                dimension=int(backend.metadata.meta("dimension") or 0) or None,
                options=options,
                progress=bar,
            )
    finally:
        backend.close()
    for problem in report.problems:
        console(stderr=True).print(f"not imported: {problem}", markup=False)
    echo(f"imported {report.imported:,} entries")


@contextmanager
def _rereadable(file: Path) -> Iterator[IO[bytes]]:
    """A file that can be read again; standard input is copied to a temporary file."""
    if str(file) != "-":
        with file.open("rb") as source:
            yield source
        return
    with TemporaryFile() as copy:
        copyfileobj(sys.stdin.buffer, copy)
        yield copy


def _lines(source: IO[bytes]) -> Iterator[str]:
    """The lines from the start; bytes that are not UTF-8 become lone surrogates."""
    source.seek(0)
    while line := source.readline(_LONGEST_LINE):
        yield line.decode("utf-8", "surrogateescape")


_LONGEST_LINE = 256 * 1024 * 1024
"""Bytes of a line that are read at once."""


def backup(
    to: Annotated[
        Path,
        typer.Argument(
            metavar="DIRECTORY",
            parser=nonempty_path,
            help="The directory to copy to; it must not hold a cache yet.",
        ),
    ],
    cache: CachePath = None,
) -> None:
    """Make a consistent copy of a cache while it is in use."""
    where = location(cache)
    with progress("copying") as bar:
        count = backend_kind(where).backup(where, to, bar)
    with open_existing(where) as backend:
        note_copy(backend.metadata, Copy("backup", str(to.resolve()), time.time()))
    echo(f"copied {count:,} entries to {to}")


def restore(
    source: Annotated[
        Path,
        typer.Argument(metavar="DIRECTORY", parser=nonempty_path, help="A backup."),
    ],
    cache: CachePath = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
) -> None:
    """Replace the content of a cache with a backup; programs using the cache switch over to it."""
    where = location(cache)
    kind = backend_kind(where)
    kind.check_backup(source)  # report a bad backup before asking for confirmation
    if kind.exists(where) and not yes:
        with open_existing(where) as backend:
            count = backend.catalogue.totals().entries
        typer.confirm(f"Replace the {count:,} entries of {backend.name}?", abort=True)
    with progress("copying") as bar:
        count = kind.restore(source, where, bar)
    echo(f"restored {count:,} entries to {where}")


def warm(
    log: Annotated[Path, typer.Argument(help="A log of calls, as `semcache replay` reads it.")],
    cache: CachePath = None,
    namespace: Annotated[
        str | None,
        typer.Option("--namespace", "-n", help="The namespace of calls that name none."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="The model of calls that name none.")
    ] = None,
    embedder_name: EmbedderName = None,
) -> None:
    """Store the answers of a log, so that a new cache serves from its first lookup.

    `lookup` and `get` find these answers, and so do functions decorated with name=None.
    """
    if not log.exists():
        raise RequestError(f"There is no file {log}.")
    from semcache.semantic_cache import SemanticCache
    from semcache.tools.logs import Call, Unread, read_log
    from semcache.tools.warming import completed

    stored = skipped = unread = 0
    out = console(stderr=True)
    with (
        SemanticCache(location(cache), embedder=embedder_name, judge=None) as warmed,
        progress("storing") as bar,
    ):
        for call in read_log(log):
            if isinstance(call, Call) and call.completion.text == call.answer_id:
                call = Unread(call.number, "it has an answer_id, but no answer")
            if isinstance(call, Unread):
                unread += 1
                if unread <= _UNREAD_SHOWN:
                    out.print(f"record {call.number} is left out: {call.reason}", markup=False)
            else:
                entry = warmed.put(completed(call.request, namespace, model), call.completion)
                stored, skipped = stored + (entry is not None), skipped + (entry is None)
            bar(stored + skipped + unread, 0)
        entries = len(warmed)
    out.print(f"stored {stored:,} answers; the cache now has {entries:,} entries")
    if skipped:
        out.print(f"{skipped:,} answers were not stored: they are empty, cut off or tool calls")
    if unread:
        out.print(f"{unread:,} records could not be read")
    if not stored:
        raise typer.Exit(NOTHING_FOUND)


_UNREAD_SHOWN = 3
"""How many unreadable records are reported one by one; the others are only counted."""

COMMANDS = (warm, export, import_, backup, restore)
