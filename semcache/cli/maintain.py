"""Commands that change a cache: delete, clear, check, warmup, reembed, vacuum."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated

import typer

from semcache.assembly.embedding import named_embedder
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
    directory,
    print_json,
    progress,
    seconds,
    size,
    store,
)
from semcache.types import Selection

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def delete(
    ids: Annotated[list[int], typer.Argument(metavar="ID...")], cache: CachePath = None
) -> None:
    """Delete entries by id."""
    with store(cache) as opened:
        deleted = opened.delete(Selection(ids=tuple(ids)))
    typer.echo(f"deleted {len(deleted)} of {len(set(ids))}")
    if len(deleted) < len(set(ids)):
        missing = sorted(set(ids) - set(deleted))
        console(stderr=True).print(f"no entry {', '.join(map(str, missing))}")
        raise typer.Exit(NOTHING)


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
    from semcache.backends.local.maintenance import stored_repository

    with store(cache) as opened:
        count = opened.count(selection)
        if count and not yes:
            what = "ALL " if selection.everything else ""
            typer.confirm(f"Delete {what}{count:,} entries of {directory(cache)}?", abort=True)
        deleted = stored_repository(directory(cache), opened).delete(selection)
    typer.echo(f"deleted {deleted}")


def check(
    cache: CachePath = None,
    fix: Annotated[bool, typer.Option("--fix", help="Mend what can be mended.")] = False,
    as_json: AsJson = False,
) -> None:
    """Hold the index against the database, and the database against its rules."""
    from semcache.backends.local.maintenance import check as examine
    from semcache.backends.local.maintenance import rescue

    with progress("checking") as bar:
        said = rescue(directory(cache), fix=fix, progress=bar)
    if said and not fix:
        if as_json:
            print_json({"problems": said, "mended": []})
        else:
            for line in said:
                typer.echo(f"PROBLEM: {line}")
        raise typer.Exit(NOTHING)
    with store(cache) as opened:
        report = examine(directory(cache), opened, fix=fix)
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
    from semcache.backends.local.maintenance import reembed as embed_anew
    from semcache.embedders.default import DefaultEmbedder

    chosen = DefaultEmbedder() if embedder_name is None else named_embedder(embedder_name)
    with store(cache) as opened, progress("embedding") as bar:
        before = opened.meta("fingerprint")
        count = embed_anew(opened, chosen, bar)
    if as_json:
        print_json({"vectors": count, "from": before, "to": chosen.fingerprint})
    else:
        typer.echo(f"{count:,} vectors, {before or 'none'} -> {chosen.fingerprint}")


def vacuum(cache: CachePath = None) -> None:
    """Give the space of deleted entries back to the disk."""
    with store(cache) as opened:
        before = opened.file_bytes()
        opened.vacuum()
        after = opened.file_bytes()
    typer.echo(f"{size(before)} -> {size(after)}")


COMMANDS = (delete, clear, check, warmup, reembed, vacuum)
