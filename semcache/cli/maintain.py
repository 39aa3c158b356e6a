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

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]


def delete(
    ids: Annotated[list[int], typer.Argument(metavar="ID...", help="The ids of the entries.")],
    cache: CachePath = None,
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
    """The entries of a backend, opened without an embedder, since they are only deleted."""

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
    """Delete entries by namespace, model, tag or age; all entries if no option selects any."""
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
    fix: Annotated[bool, typer.Option("--fix", help="Repair what can be repaired.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check the database for damage, and the index against the database."""
    where = location(cache)
    with progress("checking") as bar:
        damage = backend_kind(where).recover(where, fix=fix, progress=bar)
    if damage and not fix:
        if as_json:
            print_json({"problems": damage, "mended": []})
        else:
            for problem in damage:
                typer.echo(f"PROBLEM: {problem}")
        raise typer.Exit(NOTHING)
    with opened(where) as backend:
        report = maintenance(backend, "checked").check(fix=fix)
    report.mended[:0] = damage
    if as_json:
        print_json(asdict(report))
    else:
        typer.echo(
            f"{report.entries:,} entries, {report.vectors:,} with an embedding, "
            f"{report.scopes:,} scopes, embedder {report.embedder or 'none yet'}"
        )
        for repair in report.mended:
            typer.echo(f"repaired: {repair}")
        for problem in report.problems:
            typer.echo(f"PROBLEM: {problem}")
        if not report.problems:
            typer.echo("no problems")
    if report.problems:
        raise typer.Exit(NOTHING)


def warmup(
    force: Annotated[bool, typer.Option("--force", help="Export the model again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Prepare the default embedding model, so that later processes do not need PyTorch."""
    from semcache.embedders.default import DefaultEmbedder
    from semcache.embedders.export import export_model, remove_exports
    from semcache.embedders.minilm import find_export, read_manifest

    out = console(stderr=True)
    start = time.perf_counter()
    if force:
        remove_exports()
    exported = find_export() is None
    if exported:
        export_model(progress=lambda message: out.print(f"  {message}"))
    embedder = DefaultEmbedder()
    embedder.load()
    embedding_start = time.perf_counter()
    embedder.embed(["How do I reset my password?"])
    first = time.perf_counter() - embedding_start
    where = find_export()
    if as_json:
        print_json(
            {
                "fingerprint": embedder.fingerprint,
                "directory": None if where is None else str(where),
                "exported": exported,
                "seconds": time.perf_counter() - start,
            }
        )
        return
    typer.echo(
        f"{embedder.fingerprint} is ready ({time.perf_counter() - start:.1f} s, "
        f"first embedding {first * 1e3:.1f} ms)"
    )
    if where is not None:
        typer.echo(f"it is stored in {where}")
        manifest = read_manifest(where)
        if manifest is not None and manifest.said:
            typer.echo(manifest.said)


def reembed(
    cache: CachePath = None, embedder_name: EmbedderName = None, as_json: AsJson = False
) -> None:
    """Embed every stored question again, with another embedder; may be interrupted."""
    from semcache.embedders.default import DefaultEmbedder
    from semcache.embedders.named import named_embedder

    embedder = DefaultEmbedder() if embedder_name is None else named_embedder(embedder_name)
    with opened(cache) as backend, progress("embedding") as bar:
        before = backend.embedder
        count = maintenance(backend, "re-embedded").reembed(embedder, bar)
    if as_json:
        print_json({"vectors": count, "from": before, "to": embedder.fingerprint})
    else:
        typer.echo(f"{count:,} embeddings, {before or 'none'} -> {embedder.fingerprint}")


def vacuum(cache: CachePath = None) -> None:
    """Return the disk space of deleted entries to the file system."""
    with opened(cache) as backend:
        before, after = maintenance(backend, "vacuumed").vacuum()
    typer.echo(f"{size(before)} -> {size(after)}")


COMMANDS = (delete, clear, check, warmup, reembed, vacuum)
