"""The command `semcache replay`."""

from __future__ import annotations

import random
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from semcache.cli.common import AsJson, EmbedderName, console, print_json, progress, short
from semcache.errors import RequestError
from semcache.options import MAX_FALSE_HIT_RATE

if TYPE_CHECKING:
    from semcache.tools.logs import Call
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
    max_false_hit_rate: Annotated[
        float, typer.Option(help="The bound of semcache's own policy, which is shown first.")
    ] = MAX_FALSE_HIT_RATE,
    review: Annotated[
        bool,
        typer.Option("--review", help="Judge pairs of questions: y(es), n(o), s(kip), q(uit)."),
    ] = False,
    at_random: Annotated[
        bool,
        typer.Option("--random", help="Review pairs in random order, to get an estimate."),
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
    """Show what semcache and fixed thresholds would have saved and served on your own log.

    Reads records with "prompt" and "response", OpenAI requests and responses, exports of
    LiteLLM and Langfuse, the output of `semcache batch`, and prompts alone, one per line.
    Nothing leaves this machine. Only labels can tell whether the served answers would have been
    right: --review asks you for them, starting with the pairs whose answers differ most, or in
    random order with --random.
    """
    from semcache.embedders.default import DefaultEmbedder
    from semcache.embedders.named import named_embedder
    from semcache.tools.logs import Call, read_log
    from semcache.tools.replay import THRESHOLDS, Labels, known, most_doubtful, try_thresholds

    records = list(read_log(log, need_answers=False))
    calls = [record for record in records if isinstance(record, Call)]
    unread = [record for record in records if not isinstance(record, Call)]
    if not calls:
        reason = f" (line {unread[0].number}: {unread[0].reason})" if unread else ""
        raise RequestError(f"{log} holds no call that can be read{reason}.")
    embedder = named_embedder(embedder_name) if embedder_name else DefaultEmbedder()
    with progress("replaying") as bar:
        saved, pairs = try_thresholds(
            calls, embedder, threshold or THRESHOLDS, bound=max_false_hit_rate, progress=bar
        )
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
                "semcache": _as_json(*results[0]),
                "thresholds": [_as_json(*result) for result in results[1:]],
                "doubtful": [asdict(pair) for pair in doubtful],
            }
        )
        return
    _show(calls, unread, results)
    _show_pairs(doubtful, sum(not p.same and p.key not in labels.given for p in pairs.values()))


def _as_json(saved: Saved, false_hits: Known) -> dict[str, Any]:
    return {**asdict(saved), "hit_rate": saved.hit_rate, "false_hits": asdict(false_hits)}


def _show(calls: list[Call], unread: list[Any], results: list[tuple[Saved, Known]]) -> None:
    from rich.table import Table

    out = console()
    unanswered = sum(not call.answered for call in calls)
    out.print(f"{len(calls):,} calls" + (f", {unanswered:,} without an answer" * bool(unanswered)))
    if unread:
        out.print(f"{len(unread):,} records were skipped, such as line {unread[0].number}: ")
        out.print(f"  {unread[0].reason}", markup=False)
    costs = any(one.usd is not None for one, _ in results)
    table = Table("policy", box=None, pad_edge=False)
    for name in ("hits", "exact", "semantic", "tokens saved", *(["USD saved"] * costs), "wrong"):
        table.add_column(name, justify="right")
    for one, false_hits in results:
        cells = [
            one.name,
            f"{one.hit_rate:.1%}",
            f"{one.exact:,}",
            f"{one.semantic:,}",
            f"{one.tokens:,}",
        ]
        if costs:
            cells.append("not known" if one.usd is None else f"{one.usd:,.4f}")
        table.add_row(*cells, _in_words(false_hits))
    out.print(table)
    unpriced = max(one.unpriced for one, _ in results)
    if costs and unpriced:
        out.print(f"USD saved: excludes up to {unpriced:,} hits whose price is not known.")
    out.print(_legend(results))
    if unanswered and results[0][0].max_false_hit_rate is not None:
        out.print("Without the answers, semcache cannot learn, so it serves less here than in use.")


def _in_words(known: Known) -> str:
    """What is known of a false hit rate, in a few characters."""
    if known.how == "nothing served":
        return "-"
    if known.how == "all judged":
        return f"{known.rate:.1%}"
    assert known.low is not None
    assert known.high is not None
    interval = f"{100 * known.low:.0f}-{known.high:.0%}"
    return interval if known.rate is None else f"~{known.rate:.1%} ({interval})"


def _legend(results: list[tuple[Saved, Known]]) -> str:
    """What the last column means, and how much of it is known."""
    judged = max((known.judged for _, known in results), default=0)
    served = max((known.served for _, known in results), default=0)
    meaning = "wrong: the share of the semantic hits whose answer would have been wrong."
    if judged == served:
        return meaning
    return f"{meaning} Ranges: of up to {served:,} served pairs, only {judged:,} have been judged."


def _show_pairs(pairs: list[Pair], unjudged: int) -> None:
    if not pairs:
        return
    out = console()
    out.print(
        f"{unjudged:,} served pairs have not been judged (judge them with --review). Those whose "
        "two answers differ most:"
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
