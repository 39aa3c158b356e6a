"""The command `semcache demo`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from semcache.backends.opening import backend_kind
from semcache.cli.common import AsJson, console, nonempty_path, print_json, progress
from semcache.options import Trust, description

if TYPE_CHECKING:
    from rich.console import Console

    from semcache.tools.demo import Outcome


def demo(
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            "-c",
            metavar="PATH",
            parser=nonempty_path,
            help="Keep the cache in this directory, to inspect it afterwards.",
        ),
    ] = None,
    threshold: Annotated[float | None, typer.Option(help=description(Trust, "threshold"))] = None,
    max_false_hit_rate: Annotated[
        float, typer.Option(help="The largest share of the semantic hits that may be wrong.")
    ] = 0.05,
    as_json: AsJson = False,
) -> None:
    """Send 413 support questions through a real cache; needs no API key and no network."""
    from semcache.errors import ConfigError
    from semcache.semantic_cache import SemanticCache
    from semcache.tools import demo as stream

    policy: dict[str, Any] = {"threshold": threshold}
    if threshold is None:
        policy = {
            "max_false_hit_rate": max_false_hit_rate,
            "trust": Trust(judge_in_background=False),
        }
    out = console(stderr=as_json)
    with tempfile.TemporaryDirectory(prefix="semcache-demo-") as temporary:
        path = cache or Path(temporary) / "cache"
        if backend_kind(str(path)).exists(str(path)):
            raise ConfigError(f"{path} already holds a cache; the demo needs a new one.")
        all_questions = stream.questions()
        with SemanticCache(path, **policy) as cached, progress("asking") as bar:
            for outcome in stream.run(cached, all_questions):
                bar(outcome.questions, len(all_questions))
    if as_json:
        print_json(_as_json(outcome, policy))
    else:
        _print(out, outcome, policy)
        if cache is not None:
            out.print(f"\nThe cache was kept; inspect it with: semcache stats --cache {cache}")


def _as_json(outcome: Outcome, policy: dict[str, Any]) -> dict[str, Any]:
    return {
        "questions": outcome.questions,
        "threshold": policy.get("threshold"),
        "max_false_hit_rate": policy.get("max_false_hit_rate"),
        "exact_hits": outcome.ends["exact"],
        "semantic_hits": outcome.ends["semantic"],
        "misses": outcome.ends["miss"],
        "explored": outcome.ends["explore"],
        "wrong_answers_served": sum(outcome.wrong.values()),
        "wrong_by_kind": dict(+outcome.wrong),
        "across_tenants": outcome.across_tenants,
        "calls_saved": outcome.ends["exact"] + outcome.ends["semantic"],
        "answered_before": outcome.repeated,
        "median_ms": {what: outcome.milliseconds(what) for what in outcome.seconds},
    }


def _print(out: Console, outcome: Outcome, policy: dict[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from semcache.cli.explanations import print_explanation
    from semcache.tools.demo import chosen_examples

    total, ends = outcome.questions, outcome.ends
    wrong = sum(outcome.wrong.values())
    out.print(
        f"\n[bold]{total} questions[/] to two companies, {_described(policy)}; misses are "
        "answered by the [italic]offline answerer[/] (a table of correct answers, not a language "
        "model).\n"
    )
    table = Table(box=None, header_style="bold")
    table.add_column("")
    for name in ("questions", "share", "median time"):
        table.add_column(name, justify="right")
    rows = [("exact hits", "exact"), ("semantic hits", "semantic"), ("misses", "miss")]
    if ends["explore"]:
        rows.append(("explorations", "explore"))
    for title, end in rows:
        table.add_row(
            title, str(ends[end]), f"{ends[end] / total:.1%}", _duration(outcome.milliseconds(end))
        )
    table.add_row("  storing an answer", "", "", _duration(outcome.milliseconds("record")))
    saved = ends["exact"] + ends["semantic"]
    table.add_row("calls saved", str(saved), f"{saved / total:.1%}", "")
    table.add_row("an oracle would save", str(outcome.repeated), f"{outcome.repeated / total:.1%}")
    table.add_row("wrong answers served", str(wrong), f"{wrong / total:.1%}", "")
    if ends["semantic"]:
        table.add_row("  as share of semantic hits", "", f"{wrong / ends['semantic']:.1%}", "")
    table.add_row("  from another tenant", str(outcome.across_tenants), "", "")
    out.print(table)
    for title, example in chosen_examples(outcome):
        question = example.question
        out.print(f"\n[bold underline]{title}[/]  ({question.tenant})")
        print_explanation(example.explanation)
        out.print(f"[bold]correct answer[/] {escape(question.answer)}")


def _duration(milliseconds: float | None) -> str:
    return "-" if milliseconds is None else f"{milliseconds:.2f} ms"


def _described(policy: dict[str, Any]) -> str:
    if policy.get("threshold") is not None:
        return f"threshold {policy['threshold']}"
    return f"at most {policy['max_false_hit_rate']:.0%} of the semantic hits wrong"


COMMANDS = (demo,)
