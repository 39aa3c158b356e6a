"""semcache replay"""

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
    log: Annotated[Path, typer.Argument(metavar="LOG.jsonl", exists=True, dir_okay=False)],
    threshold: Annotated[
        list[float] | None, typer.Option("--threshold", help="May be given several times.")
    ] = None,
    review: Annotated[bool, typer.Option("--review", help="Judge pairs: y, n, s, q.")] = False,
    at_random: Annotated[
        bool, typer.Option("--random", help="Review pairs at random, for an estimate.")
    ] = False,
    count: Annotated[int, typer.Option("--pairs", min=0, help="So many pairs are shown.")] = 10,
    labels_file: Annotated[
        Path | None, typer.Option("--labels", help="By default beside the log.")
    ] = None,
    embedder_name: EmbedderName = None,
    as_json: AsJson = False,
) -> None:
    """What each threshold would have saved on a log of yours, and what it would have served.

    Reads {"prompt", "response"}, OpenAI's requests and responses, LiteLLM's and Langfuse's
    exports. Nothing leaves this machine. Whether answers would have been right, only labels
    can tell: --review asks, most doubtful pairs first, or at random with --random.
    """
    from semcache.embedders.default import DefaultEmbedder
    from semcache.embedders.named import named_embedder
    from semcache.tools.logs import Call, read_log
    from semcache.tools.replay import THRESHOLDS, Labels, known, most_doubtful, try_thresholds

    records = list(read_log(log))
    calls = [record for record in records if isinstance(record, Call)]
    unread = [record for record in records if not isinstance(record, Call)]
    if not calls:
        why = f" (line {unread[0].number}: {unread[0].reason})" if unread else ""
        raise RequestError(f"{log} holds no call that can be read{why}.")
    embedder = named_embedder(embedder_name) if embedder_name else DefaultEmbedder()
    with progress("replaying") as bar:
        saved, pairs = try_thresholds(calls, embedder, threshold or THRESHOLDS, bar)
    labels = Labels(labels_file or log.with_name(f"{log.name}.labels.jsonl"))
    if review:
        _review(most_doubtful(pairs.values()), labels, at_random=at_random)
    found = [(one, known(one, pairs, labels.given)) for one in saved]
    doubtful = [p for p in most_doubtful(pairs.values()) if p.key not in labels.given][:count]
    if as_json:
        print_json(
            {
                "calls": len(calls),
                "unread": [asdict(one) for one in unread],
                "thresholds": [
                    {**asdict(one), "hit_rate": one.hit_rate, "false_hits": asdict(said)}
                    for one, said in found
                ],
                "doubtful": [asdict(pair) for pair in doubtful],
            }
        )
        return
    _show(len(calls), unread, found)
    _show_pairs(doubtful, sum(not p.same and p.key not in labels.given for p in pairs.values()))


def _show(calls: int, unread: list[Any], found: list[tuple[Saved, Known]]) -> None:
    from rich.table import Table

    out = console()
    out.print(f"{calls:,} calls")
    if unread:
        out.print(f"{len(unread):,} records were passed over, such as line {unread[0].number}: ")
        out.print(f"  {unread[0].reason}", markup=False)
    table = Table(
        "threshold", "hit rate", "exact", "semantic", "tokens saved", "USD saved", "false hits"
    )
    for one, said in found:
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
            _told(said),
        )
    out.print(table)


def _told(said: Known) -> str:
    """What is known of a false hit rate, in words."""
    if said.how == "nothing served":
        return "-"
    assert said.low is not None
    assert said.high is not None
    between = f"{said.low:.1%} to {said.high:.1%}"
    if said.how == "all judged":
        return f"{said.rate:.1%} ({between}), all judged"
    if said.rate is not None:
        return f"about {said.rate:.1%} ({between}), {said.judged} of {said.served} judged"
    return f"not known: {between}, {said.judged} of {said.served} judged"


def _show_pairs(pairs: list[Pair], left: int) -> None:
    if not pairs:
        return
    out = console()
    out.print(f"{left:,} served pairs have not been judged; the most doubtful (--review asks):")
    for pair in pairs:
        out.print(f"  {pair.similarity:.3f}  {short(pair.question, 90)}", markup=False)
        out.print(f"         {short(pair.stored_question, 90)}", markup=False, style="dim")


def _review(pairs: list[Pair], labels: Labels, *, at_random: bool) -> None:
    """Ask y/n/s/q for pairs without a label, and keep what is said."""
    from semcache.tools.replay import Label

    left = [pair for pair in pairs if pair.key not in labels.given]
    if at_random:
        random.Random(len(pairs)).shuffle(left)
    out = console(stderr=True)
    for place, pair in enumerate(left, 1):
        out.print(f"\n{place} of {len(left)}, similarity {pair.similarity:.3f}", style="bold")
        out.print(f"asked:  {short(pair.question, 300)}", markup=False)
        out.print(f"stored: {short(pair.stored_question, 300)}", markup=False)
        out.print(f"the log's answer: {short(pair.answer, 300)}", markup=False, style="dim")
        out.print(f"the stored one:   {short(pair.stored_answer, 300)}", markup=False, style="dim")
        said = _key_pressed("Is the stored answer right for what was asked? [y/n/s(kip)/q(uit)] ")
        if said == "q":
            return
        if said in ("y", "n"):
            labels.add(pair, Label("right" if said == "y" else "wrong", at_random))


def _key_pressed(question: str) -> str:
    while True:
        try:
            said = input(question).strip().lower()[:1]
        except EOFError:
            return "q"
        if said in ("y", "n", "s", "q"):
            return said


COMMANDS = (replay,)
