"""Commands that maintain a cache: delete, clear, erase, check, warmup, reembed, vacuum."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from statistics import median
from typing import TYPE_CHECKING, Annotated

import typer

from semcache.backends.opening import backend_kind
from semcache.backends.retention import Retention
from semcache.cli.common import (
    NOTHING_FOUND,
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
    open_existing,
    print_json,
    progress,
    seconds,
    size,
)
from semcache.cli.terminal import echo
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
    with open_existing(cache) as backend:
        missing = sorted(wanted - backend.catalogue.get_many(sorted(wanted)).keys())
        deleted = _entries(backend).delete(Selection(ids=tuple(wanted)))
    echo(f"deleted {deleted} of {len(wanted)}")
    if missing:
        console(stderr=True).print(f"no entry {', '.join(map(str, missing))}")
        raise typer.Exit(NOTHING_FOUND)


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
    """Delete entries by namespace, model, tag or age; without such an option, all entries."""
    age = seconds(older_than)
    now = time.time()
    selection = Selection(
        namespace,
        model,
        tag,
        created_before=None if age is None else now - age,
        expired_at=now if expired else None,
    )
    with open_existing(cache) as backend:
        count = backend.catalogue.count(selection)
        if count and not yes:
            what = "ALL " if selection.everything else ""
            typer.confirm(f"Delete {what}{count:,} entries of {backend.name}?", abort=True)
        deleted = _entries(backend).delete(selection)
    echo(f"deleted {deleted}")


def erase(
    cache: CachePath = None,
    namespace: Namespace = None,
    tag: Tag = None,
    yes: Yes = False,
) -> None:
    """Delete all that concerns a user, by namespace or tag, and rewrite the database."""
    from semcache.engine.erasure import erase as erase_from

    selection = Selection(namespace, tag=tag)
    with open_existing(cache) as backend:
        if not yes and (namespace or tag):
            count = backend.catalogue.count(selection)
            typer.confirm(
                f"Delete {count:,} entries of {backend.name} and all that was learned from them?",
                abort=True,
            )
        erased = erase_from(backend, _entries(backend), selection)
        if backend.maintenance is not None:
            backend.maintenance.vacuum()
    echo(f"deleted {erased.entries:,} entries and {erased.labels:,} labels")
    if erased.copies:
        echo("These exports and backups may still hold some of what was deleted:")
    for copy in erased.copies:
        made = datetime.fromtimestamp(copy.at, UTC)
        echo(f"  {copy.kind} of {made:%Y-%m-%d %H:%M} UTC: {copy.path}")


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
                echo(f"PROBLEM: {problem}")
        raise typer.Exit(NOTHING_FOUND)
    with open_existing(where) as backend:
        report = maintenance(backend, "checked").check(fix=fix)
    report.mended[:0] = damage
    if as_json:
        print_json(asdict(report))
    else:
        echo(
            f"{report.entries:,} entries, {report.vectors:,} with an embedding, "
            f"{report.scopes:,} scopes, embedder {report.embedder or 'none yet'}"
        )
        for repair in report.mended:
            echo(f"repaired: {repair}")
        for problem in report.problems:
            echo(f"PROBLEM: {problem}")
        if not report.problems:
            echo("no problems")
    if report.problems:
        raise typer.Exit(NOTHING_FOUND)


def warmup(as_json: AsJson = False) -> None:
    """Load the models, and compare this machine's embeddings with the original model's."""
    from semcache.embedders.default import DefaultEmbedder
    from semcache.embedders.reference import MIN_COSINE, SENTENCES, min_cosine
    from semcache.verification.pair_model import PairModel

    embedder, verifier = DefaultEmbedder(), PairModel()
    pairs = list(zip(SENTENCES, SENTENCES[1:], strict=False))
    taken = {
        "load_embedder": _timed(embedder.load),
        "load_verifier": _timed(verifier.load),
        "embedding": median(_timed(embedder.embed, [text]) for text in SENTENCES),
        "verifying": median(_timed(verifier.logits, [pair]) for pair in pairs),
    }
    agreement = min_cosine(embedder)
    if as_json:
        found = {"fingerprint": embedder.fingerprint, "least_cosine": agreement}
        print_json({**found, "sentences": len(SENTENCES), "seconds": taken})
    else:
        ms = {name: f"{spent * 1e3:.1f} ms" for name, spent in taken.items()}
        echo(
            f"{embedder.fingerprint}: loaded in {ms['load_embedder']}, a text takes "
            f"{ms['embedding']}\nverifier: loaded in {ms['load_verifier']}, a pair takes "
            f"{ms['verifying']}\nlowest cosine to the original model over {len(SENTENCES)} "
            f"sentences: {agreement:.4f}"
        )
    if agreement < MIN_COSINE["int8"]:
        console(stderr=True).print(
            f"PROBLEM: at least {MIN_COSINE['int8']} is expected. On this machine the model "
            'gives wrong vectors; use DefaultEmbedder("float32") as the embedder of the cache.'
        )
        raise typer.Exit(NOTHING_FOUND)


def _timed(call: Callable[..., object], *args: object) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    call(*args)
    return time.perf_counter() - start


def reembed(
    cache: CachePath = None, embedder_name: EmbedderName = None, as_json: AsJson = False
) -> None:
    """Embed all stored questions again with another embedder; interrupted runs can be resumed."""
    from semcache.embedders.default import DefaultEmbedder
    from semcache.embedders.named import named_embedder

    embedder = DefaultEmbedder() if embedder_name is None else named_embedder(embedder_name)
    with open_existing(cache) as backend, progress("embedding") as bar:
        before = backend.embedder
        count = maintenance(backend, "re-embedded").reembed(embedder, bar)
    if as_json:
        print_json({"vectors": count, "from": before, "to": embedder.fingerprint})
    else:
        echo(f"{count:,} embeddings, {before or 'none'} -> {embedder.fingerprint}")


def vacuum(cache: CachePath = None) -> None:
    """Return the disk space of deleted entries to the file system."""
    with open_existing(cache) as backend:
        before, after = maintenance(backend, "vacuumed").vacuum()
    echo(f"{size(before)} -> {size(after)}")


COMMANDS = (delete, clear, erase, check, warmup, reembed, vacuum)
