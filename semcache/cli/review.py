"""Commands about what a cache learns: review, tune."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from semcache.cli.common import (
    NOTHING,
    AsJson,
    CachePath,
    EmbedderName,
    console,
    opened,
    print_json,
    progress,
    short,
)

if TYPE_CHECKING:
    from semcache.tools.tuning import Tuned
    from semcache.types import ServedHit


def review(
    cache: CachePath = None,
    count: Annotated[int, typer.Option("--count", min=1, help="So many at most.")] = 20,
    export: Annotated[
        bool, typer.Option("--list", help="Print them as JSON lines and ask nothing.")
    ] = False,
) -> None:
    """Judge semantic hits, drawn at random: y right, n wrong, s skip, q quit.

    What you say counts as a label: running caches take it over within a second.
    """
    from semcache.inspection import record_review

    said = 0
    with opened(cache) as backend:
        waiting = backend.ledger.unreviewed(count)
        if not waiting:
            console(stderr=True).print("no semantic hits that nobody has judged")
            raise typer.Exit(NOTHING)
        writer = os.urandom(6).hex()
        for number, serve in enumerate(waiting, 1):
            entry = backend.catalogue.get_many([serve.entry_id]).get(serve.entry_id)
            if entry is None:  # deleted meanwhile
                continue
            if export:
                shown = {
                    "id": serve.id,
                    "asked": serve.question,
                    "stored": entry.question,
                    "served": entry.completion.text,
                    "similarity": serve.similarity,
                    "chance": serve.chance,
                }
                typer.echo(json.dumps(shown, ensure_ascii=False))
                continue
            _show_serve(number, len(waiting), serve, entry.question, entry.completion.text)
            verdict = _asked()
            if verdict == "q":
                break
            if verdict == "s":
                continue
            record_review(backend, serve, verdict == "y", writer)
            said += 1
    if not export:
        console(stderr=True).print(f"{said} judged")


def _show_serve(number: int, of: int, serve: ServedHit, stored: str | None, answer: str) -> None:
    from rich.markup import escape

    out = console()
    out.print(
        f"\n[bold]{number} of {of}[/]  {escape(serve.namespace)}  similarity "
        f"{serve.similarity:.4f}, believed right with {serve.chance:.1%}"
    )
    out.print(f"[bold]asked[/]   {escape(serve.question)}")
    out.print(f"[bold]stored[/]  {escape(stored or '')}")
    out.print(f"[bold]served[/]  {escape(short(answer, 600))}")


def _asked() -> str:
    while True:
        given: str = typer.prompt("right? (y/n/s/q)").strip().lower()
        if given in ("y", "n", "s", "q"):
            return given


def tune(
    log: Annotated[Path, typer.Argument(metavar="LOG.jsonl", exists=True, dir_okay=False)],
    cache: CachePath = None,
    max_false_hit_rate: Annotated[float, typer.Option(help="The bound that you use.")] = 0.02,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Keep nothing.")] = False,
    embedder_name: EmbedderName = None,
    as_json: AsJson = False,
) -> None:
    """Fit the verifier's prior to a log of yours, and keep it if it is better on later calls.

    Reads what `replay` reads. Where a record has an "answer_id", equal ids are the same answer;
    elsewhere the local judge compares the answers. Nothing leaves this machine.
    """
    from semcache.assembly.verification import bound_config, judge_of
    from semcache.embedders.default import DefaultEmbedder
    from semcache.embedders.named import named_embedder
    from semcache.errors import EmbedderError, RequestError
    from semcache.options import CONFIDENCE
    from semcache.tools.logs import Call, read_log
    from semcache.tools.tuning import look_through
    from semcache.tools.tuning import tune as fit
    from semcache.verification.memory import install_prior
    from semcache.verification.pair_model import PairModel

    rules = bound_config(max_false_hit_rate, CONFIDENCE)
    calls = [record for record in read_log(log) if isinstance(record, Call)]
    if not calls:
        raise RequestError(f"{log} holds no call that can be read.")
    embedder = named_embedder(embedder_name) if embedder_name else DefaultEmbedder()
    shipped = PairModel()
    model: PairModel | None = shipped
    try:
        shipped.load()
    except EmbedderError as error:
        console(stderr=True).print(f"without the pair model: {error}")
        model = None
    judge = judge_of("local", embedder, None)
    assert judge is not None
    with progress("looking at pairs") as bar:
        looked = look_through(calls, embedder, model, judge, bar)
    tuned = fit(looked, len(calls), rules, with_model=model is not None)
    kept = tuned.weights is not None and not dry_run and cache is not None
    if kept:
        assert tuned.weights is not None
        with opened(cache) as backend:
            install_prior(backend.metadata, tuned.weights, with_model=tuned.with_model)
    if as_json:
        print_json({**asdict(tuned), "kept": kept})
        return
    _print_tuned(tuned, kept, cache is None)


def _print_tuned(tuned: Tuned, kept: bool, nowhere: bool) -> None:
    from rich.table import Table

    out = console()
    out.print(
        f"learned from {tuned.learned_from:,} labelled pairs, held against {tuned.held_against:,} "
        f"of the {tuned.calls:,} calls that came later"
    )
    table = Table("at most wrong", "hits before", "hits after", box=None, header_style="bold")
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
        reason = "no cache was named (--cache)" if nowhere else "--dry-run"
        out.print(f"better, but not kept: {reason}")


COMMANDS = (review, tune)
