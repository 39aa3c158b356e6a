"""The command `semcache replay`."""

from __future__ import annotations

import random
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from semcache.cli.common import AsJson, EmbedderName, console, print_json, progress, short
from semcache.errors import RequestError

if TYPE_CHECKING:
    from semcache.tools.replay import Known, Labels, Pair, Saved


def replay(
    log: Annotated[
        Path,
        typer.Argument(metavar="LOG.jsonl", exists=True, dir_okay=False, help="A log of calls."),
    ],
    threshold: Annotated[
        list[float] | None,
        typer.Option("--threshold", help="A threshold to try; may be given several times."),
    ] = None,
    review: Annotated[
        bool,
        typer.Option("--review", help="Judge pairs of questions: y(es), n(o), s(kip), q(uit)."),
    ] = False,
    at_random: Annotated[
        bool,
        typer.Option("--random", help="Review pairs in random order, which gives an estimate."),
    ] = False,
    count: Annotated[
        int, typer.Option("--pairs", min=0, help="The number of unjudged pairs to show.")
    ] = 10,
    labels_file: Annotated[
        Path | None,
        typer.Option("--labels", help="The file of labels; by default next to the log."),
    ] = None,
    embedder_name: EmbedderName = None,
    as_json: AsJson = False,
) -> None:
    """Show what each threshold would have saved on a log of yours, and what it would have served.

    Reads records with "prompt" and "response", OpenAI requests and responses, and exports of
    LiteLLM and Langfuse. Nothing leaves this machine. Only labels can tell whether the
    served answers would have been right: --review asks you for them, starting with the most
    doubtful pairs, or in random order with --random.
    """
    from semcache.embedders.default import DefaultEmbedder
    from semcache.embedders.named import named_embedder
    from semcache.tools.logs import Call, read_log
    from semcache.tools.replay import THRESHOLDS, Labels, known, most_doubtful, try_thresholds

    records = list(read_log(log))
    calls = [record for record in records if isinstance(record, Call)]
    unread = [record for record in records if not isinstance(record, Call)]
    if not calls:
        reason = f" (line {unread[0].number}: {unread[0].reason})" if unread else ""
        raise RequestError(f"{log} holds no call that can be read{reason}.")
    embedder = named_embedder(embedder_name) if embedder_name else DefaultEmbedder()
    with progress("replaying") as bar:
        saved, pairs = try_thresholds(calls, embedder, threshold or THRESHOLDS, bar)
    labels = Labels(labels_file or log.with_name(f"{log.name}.labels.jsonl"))
    if review:
        _review(most_doubtful(pairs.values()), labels, at_random=at_random)
    results = [(one, known(one, pairs, labels.given)) for one in saved]
    doubtful = [p for p in most_doubtful(pairs.values()) if p.key not in labels.given][:count]
    if as_json:
        print_json(
            {
                "calls": len(calls),
                "unread": [asdict(one) for one in unread],
                "thresholds": [
                    {**asdict(one), "hit_rate": one.hit_rate, "false_hits": asdict(false_hits)}
                    for one, false_hits in results
                ],
                "doubtful": [asdict(pair) for pair in doubtful],
            }
        )
        return
    _show(len(calls), unread, results)
    _show_pairs(doubtful, sum(not p.same and p.key not in labels.given for p in pairs.values()))


def _show(calls: int, unread: list[Any], results: list[tuple[Saved, Known]]) -> None:
    from rich.table import Table

    out = console()
    out.print(f"{calls:,} calls")
    if unread:
        out.print(f"{len(unread):,} records were skipped, such as line {unread[0].number}: ")
        out.print(f"  {unread[0].reason}", markup=False)
    table = Table(
        "threshold", "hit rate", "exact", "semantic", "tokens saved", "USD saved", "false hits"
    )
    for one, false_hits in results:
        usd = "not known" if one.usd is None else f"{one.usd:,.4f}"
        if one.usd is not None and one.unpriced:
            usd += f" + {one.unpriced:,} unpriced"
        table.add_row(
            f"{one.threshold:g}",
            f"{one.hit_rate:.1%}",
            f"{one.exact:,}",
            f"{one.semantic:,}",
            f"{one.tokens:,}",
            usd,
            _in_words(false_hits),
        )
    out.print(table)


def _in_words(known: Known) -> str:
    """What is known of a false hit rate, in words."""
    if known.how == "nothing served":
        return "-"
    assert known.low is not None
    assert known.high is not None
    interval = f"{known.low:.1%} to {known.high:.1%}"
    if known.how == "all judged":
        return f"{known.rate:.1%} ({interval}), all judged"
    if known.rate is not None:
        return f"about {known.rate:.1%} ({interval}), {known.judged} of {known.served} judged"
    return f"not known: {interval}, {known.judged} of {known.served} judged"


def _show_pairs(pairs: list[Pair], unjudged: int) -> None:
    if not pairs:
        return
    out = console()
    out.print(
        f"{unjudged:,} served pairs have not been judged (judge them with --review); the most "
        "doubtful are:"
    )
    for pair in pairs:
        out.print(f"  {pair.similarity:.3f}  {short(pair.question, 90)}", markup=False)
        out.print(f"         {short(pair.stored_question, 90)}", markup=False, style="dim")


def _review(pairs: list[Pair], labels: Labels, *, at_random: bool) -> None:
    """Ask y/n/s/q about each pair without a label, and store the answers as labels."""
    from semcache.tools.replay import Label

    unjudged = [pair for pair in pairs if pair.key not in labels.given]
    if at_random:
        random.Random(len(pairs)).shuffle(unjudged)
    out = console(stderr=True)
    for number, pair in enumerate(unjudged, 1):
        out.print(f"\n{number} of {len(unjudged)}, similarity {pair.similarity:.3f}", style="bold")
        out.print(f"asked:  {short(pair.question, 300)}", markup=False)
        out.print(f"stored: {short(pair.stored_question, 300)}", markup=False)
        out.print(f"answer in the log: {short(pair.answer, 300)}", markup=False, style="dim")
        out.print(f"stored answer:     {short(pair.stored_answer, 300)}", markup=False, style="dim")
        verdict = _verdict("Is the stored answer right for what was asked? [y/n/s(kip)/q(uit)] ")
        if verdict == "q":
            return
        if verdict in ("y", "n"):
            labels.add(pair, Label("right" if verdict == "y" else "wrong", at_random))


def _verdict(question: str) -> str:
    """Ask until the reply begins with y, n, s or q; the end of the input counts as q."""
    while True:
        try:
            reply = input(question).strip().lower()[:1]
        except EOFError:
            return "q"
        if reply in ("y", "n", "s", "q"):
            return reply


COMMANDS = (replay,)
