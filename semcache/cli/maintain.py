"""Commands that change a cache: delete, clear, check, warmup, reembed, vacuum."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from semcache.backends.opening import backend_kind
from semcache.backends.retention import Retention
from semcache.cli.common import (
    NOTHING,
    Age,
    AsJson,
    CachePath,
    EmbedderName,
    Model,
    Namespace,
    Tag,
    console,
    location,
    maintenance,
    opened,
    print_json,
    progress,
    seconds,
    size,
)
from semcache.types import Selection

if TYPE_CHECKING:
    from semcache.backends.base import Backend, Entries

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def delete(
    ids: Annotated[list[int], typer.Argument(metavar="ID...")], cache: CachePath = None
) -> None:
    """Delete entries by id."""
    wanted = set(ids)
    with opened(cache) as backend:
        missing = sorted(wanted - backend.catalogue.get_many(sorted(wanted)).keys())
        deleted = _entries(backend).delete(Selection(ids=tuple(wanted)))
    typer.echo(f"deleted {deleted} of {len(wanted)}")
    if missing:
        console(stderr=True).print(f"no entry {', '.join(map(str, missing))}")
        raise typer.Exit(NOTHING)


def _entries(backend: Backend) -> Entries:
    """The entries of a backend for deleting alone, which needs no embedder."""

    def fault(where: str, error: BaseException) -> None:
        console(stderr=True).print(f"{where}: {error}", markup=False)

    return backend.entries(
        fingerprint=lambda: backend.embedder or "",
        retention=Retention(),
        clock=time.time,
        fault=fault,
    )


def clear(
    cache: CachePath = None,
    namespace: Namespace = None,
    model: Model = None,
    tag: Tag = None,
    older_than: Age = None,
    expired: Annotated[bool, typer.Option("--expired", help="Only expired entries.")] = False,
    yes: Yes = False,
) -> None:
    """Delete entries by namespace, model, tag or age; all of them if nothing is said."""
    age = seconds(older_than)
    now = time.time()
    selection = Selection(
        namespace,
        model,
        tag,
        created_before=None if age is None else now - age,
        expired_at=now if expired else None,
    )
    with opened(cache) as backend:
        count = backend.catalogue.count(selection)
        if count and not yes:
            what = "ALL " if selection.everything else ""
            typer.confirm(f"Delete {what}{count:,} entries of {backend.name}?", abort=True)
        deleted = _entries(backend).delete(selection)
    typer.echo(f"deleted {deleted}")


def check(
    cache: CachePath = None,
    fix: Annotated[bool, typer.Option("--fix", help="Mend what can be mended.")] = False,
    as_json: AsJson = False,
) -> None:
    """Hold the index against the database, and the database against its rules."""
    where = location(cache)
    with progress("checking") as bar:
        said = backend_kind(where).recover(where, fix=fix, progress=bar)
    if said and not fix:
        if as_json:
            print_json({"problems": said, "mended": []})
        else:
            for line in said:
                typer.echo(f"PROBLEM: {line}")
        raise typer.Exit(NOTHING)
    with opened(where) as backend:
        report = maintenance(backend, "checked").check(fix=fix)
    report.mended[:0] = said
    if as_json:
        print_json(asdict(report))
    else:
        typer.echo(
            f"{report.entries:,} entries, {report.vectors:,} with a vector, "
            f"{report.scopes:,} scopes, embedder {report.embedder or 'none yet'}"
        )
        for mended in report.mended:
            typer.echo(f"mended: {mended}")
        for problem in report.problems:
            typer.echo(f"PROBLEM: {problem}")
        if not report.problems:
            typer.echo("sound")
    if report.problems:
        raise typer.Exit(NOTHING)


def warmup(
    force: Annotated[bool, typer.Option("--force", help="Export again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make the default embedding model ready, so that no later process needs PyTorch."""
    from semcache.embedders.default import DefaultEmbedder
    from semcache.embedders.export import export_model, remove_exports
    from semcache.embedders.minilm import find_export, read_manifest

    out = console(stderr=True)
    start = time.perf_counter()
    if force:
        remove_exports()
    made = find_export() is None
    if made:
        export_model(progress=lambda said: out.print(f"  {said}"))
    embedder = DefaultEmbedder()
    embedder.load()
    began = time.perf_counter()
    embedder.embed(["How do I reset my password?"])
    first = time.perf_counter() - began
    where = find_export()
    if as_json:
        print_json(
            {
                "fingerprint": embedder.fingerprint,
                "directory": None if where is None else str(where),
                "exported": made,
                "seconds": time.perf_counter() - start,
            }
        )
        return
    typer.echo(
        f"{embedder.fingerprint} is ready ({time.perf_counter() - start:.1f} s, "
        f"first embedding {first * 1e3:.1f} ms)"
    )
    if where is not None:
        typer.echo(f"it lies in {where}")
        manifest = read_manifest(where)
        if manifest is not None and manifest.said:
            typer.echo(manifest.said)


def reembed(
    cache: CachePath = None, embedder_name: EmbedderName = None, as_json: AsJson = False
) -> None:
    """Embed every stored question anew, with another embedder; can be interrupted."""
    from semcache.embedders.default import DefaultEmbedder
    from semcache.embedders.named import named_embedder

    chosen = DefaultEmbedder() if embedder_name is None else named_embedder(embedder_name)
    with opened(cache) as backend, progress("embedding") as bar:
        before = backend.embedder
        count = maintenance(backend, "embedded again").reembed(chosen, bar)
    if as_json:
        print_json({"vectors": count, "from": before, "to": chosen.fingerprint})
    else:
        typer.echo(f"{count:,} vectors, {before or 'none'} -> {chosen.fingerprint}")


def vacuum(cache: CachePath = None) -> None:
    """Give the space of deleted entries back to the disk."""
    with opened(cache) as backend:
        before, after = maintenance(backend, "vacuumed").vacuum()
    typer.echo(f"{size(before)} -> {size(after)}")


COMMANDS = (delete, clear, check, warmup, reembed, vacuum)
