"""Commands that teach a cache which hits are right: review, tune."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from semcache.cli.common import (
    NOTHING_FOUND,
    AsJson,
    CachePath,
    EmbedderName,
    console,
    open_existing,
    print_json,
    progress,
    short,
)
from semcache.cli.terminal import echo, json_text
from semcache.options import MAX_FALSE_HIT_RATE

if TYPE_CHECKING:
    from semcache.tools.tuning import Tuned
    from semcache.types import ServedHit


def review(
    cache: CachePath = None,
    count: Annotated[
        int, typer.Option("--count", min=1, help="Review at most this many hits.")
    ] = 20,
    export: Annotated[
        bool, typer.Option("--list", help="Print the hits as JSON Lines instead of asking.")
    ] = False,
) -> None:
    """Judge semantic hits, drawn at random: y right, n wrong, s skip, q quit.

    Each verdict becomes a label, which running caches take into account within a second.
    """
    from semcache.inspection import record_review

    judged = 0
    with open_existing(cache) as backend:
        hits = backend.ledger.unreviewed(count)
        if not hits:
            console(stderr=True).print("no semantic hits left to review")
            raise typer.Exit(NOTHING_FOUND)
        writer = os.urandom(6).hex()
        for number, hit in enumerate(hits, 1):
            entry = backend.catalogue.get_many([hit.entry_id]).get(hit.entry_id)
            if entry is None:  # deleted since it was served
                continue
            if export:
                row = {
                    "id": hit.id,
                    "asked": hit.question,
                    "stored": entry.question,
                    "served": entry.completion.text,
                    "similarity": hit.similarity,
                    "chance": hit.chance,
                }
                echo(json_text(row))
                continue
            _show_hit(number, len(hits), hit, entry.question, entry.completion.text)
            verdict = _verdict()
            if verdict == "q":
                break
            if verdict == "s":
                continue
            record_review(backend, hit, verdict == "y", writer)
            judged += 1
    if not export:
        console(stderr=True).print(f"{judged} judged")


def _show_hit(number: int, of: int, hit: ServedHit, stored: str | None, answer: str) -> None:
    from rich.markup import escape

    out = console()
    out.print(
        f"\n[bold]{number} of {of}[/]  {escape(hit.namespace)}  similarity "
        f"{hit.similarity:.4f}, {hit.chance:.1%} likely to be right"
    )
    out.print(f"[bold]asked[/]   {escape(hit.question)}")
    out.print(f"[bold]stored[/]  {escape(stored or '')}")
    out.print(f"[bold]served[/]  {escape(short(answer, 600))}")


def _verdict() -> str:
    """Ask until the reply is y, n, s or q."""
    while True:
        reply: str = typer.prompt("right? (y/n/s/q)").strip().lower()
        if reply in ("y", "n", "s", "q"):
            return reply


def tune(
    log: Annotated[
        Path,
        typer.Argument(metavar="LOG.jsonl", exists=True, dir_okay=False, help="A log of calls."),
    ],
    cache: CachePath = None,
    max_false_hit_rate: Annotated[
        float, typer.Option(help="The max_false_hit_rate that your cache uses.")
    ] = MAX_FALSE_HIT_RATE,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only report; do not change the cache.")
    ] = False,
    embedder_name: EmbedderName = None,
    as_json: AsJson = False,
) -> None:
    """Fit the prior, which a new cache starts from, to your own log.

    The prior is trained on the earlier calls and tested on the later ones. It is kept in the cache
    if it predicts those better and does not clearly break the bound; without --cache or
    SEMCACHE_PATH, it is only reported.

    Reads the same logs as `replay`. If records have an "answer_id", equal ids mean equal answers;
    otherwise the local judge compares the answers. Nothing leaves this machine.
    """
    from semcache.assembly.verification import bound_config, judge_of
    from semcache.embedders.default import DefaultEmbedder
    from semcache.embedders.named import named_embedder
    from semcache.errors import EmbedderError, RequestError
    from semcache.options import CONFIDENCE
    from semcache.tools.logs import Call, read_log
    from semcache.tools.tuning import label_pairs
    from semcache.tools.tuning import tune as fit
    from semcache.verification.memory import install_prior
    from semcache.verification.pair_model import PairModel

    config = bound_config(max_false_hit_rate, CONFIDENCE)
    calls = [record for record in read_log(log) if isinstance(record, Call)]
    if not calls:
        raise RequestError(f"{log} holds no call that can be read.")
    embedder = named_embedder(embedder_name) if embedder_name else DefaultEmbedder()
    shipped = PairModel()
    model: PairModel | None = shipped
    try:
        shipped.load()
    except EmbedderError as error:
        console(stderr=True).print(f"continuing without the pair model: {error}")
        model = None
    judge = judge_of("local", embedder, None)
    assert judge is not None
    with progress("comparing pairs") as bar:
        pairs = label_pairs(calls, embedder, model, judge, bar)
    tuned = fit(pairs, len(calls), config, with_model=model is not None)
    kept = tuned.weights is not None and not dry_run and cache is not None
    if kept:
        assert tuned.weights is not None
        with open_existing(cache) as backend:
            install_prior(backend.metadata, tuned.weights, with_model=tuned.with_model)
    if as_json:
        print_json({**asdict(tuned), "kept": kept})
        return
    _print_tuned(tuned, kept, cache is None)


def _print_tuned(tuned: Tuned, kept: bool, no_cache: bool) -> None:
    from rich.table import Table

    out = console()
    out.print(
        f"fitted to {tuned.learned_from:,} labelled pairs, tested on {tuned.held_against:,} pairs "
        f"of the {tuned.calls:,} later calls"
    )
    table = Table(
        "false hit rate up to", "hits before", "hits after", box=None, header_style="bold"
    )
    rows: Any = zip(tuned.before.rates, tuned.before.hits, tuned.after.hits, strict=True)
    for rate, before, after in rows:
        table.add_row(f"{rate:.0%}", f"{before:,}", f"{after:,}")
    out.print(table)
    out.print(f"log-loss {tuned.before.loss:.4f} before, {tuned.after.loss:.4f} after")
    if tuned.weights is None:
        out.print(f"not kept: {tuned.why}")
    elif kept:
        out.print(f"kept: {tuned.why}")
    else:
        reason = "no cache was given (--cache)" if no_cache else "--dry-run"
        out.print(f"better, but not kept: {reason}")


COMMANDS = (review, tune)
