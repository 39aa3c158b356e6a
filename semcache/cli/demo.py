"""semcache demo"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from semcache.backends.opening import backend_kind
from semcache.cli.common import AsJson, console, named_path, print_json, progress

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
            parser=named_path,
            help="Keep the cache in this directory, to look into it.",
        ),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Serve from this similarity on, as other caches do.")
    ] = None,
    max_false_hit_rate: Annotated[
        float, typer.Option(help="The largest share of semantic hits that may be wrong.")
    ] = 0.05,
    as_json: AsJson = False,
) -> None:
    """Put 413 support questions through the real cache; no key and no network needed."""
    from semcache.errors import ConfigError
    from semcache.options import Trust
    from semcache.semantic_cache import SemanticCache
    from semcache.tools import demo as stream

    decides: dict[str, Any] = {"threshold": threshold}
    if threshold is None:
        decides = {
            "max_false_hit_rate": max_false_hit_rate,
            "trust": Trust(judge_in_background=False),
        }
    out = console(stderr=as_json)
    with tempfile.TemporaryDirectory(prefix="semcache-demo-") as temporary:
        path = cache or Path(temporary) / "cache"
        if backend_kind(str(path)).exists(str(path)):
            raise ConfigError(f"{path} holds a cache already; the demo wants an empty one.")
        all_questions = stream.questions()
        with SemanticCache(path, **decides) as opened, progress("asking") as bar:
            for outcome in stream.run(opened, all_questions):
                bar(outcome.questions, len(all_questions))
    if as_json:
        print_json(_as_json(outcome, decides))
    else:
        _print(out, outcome, decides)
        if cache is not None:
            out.print(f"\nThe cache is kept: semcache stats --cache {cache}")


def _as_json(outcome: Outcome, decides: dict[str, Any]) -> dict[str, Any]:
    return {
        "questions": outcome.questions,
        "threshold": decides.get("threshold"),
        "max_false_hit_rate": decides.get("max_false_hit_rate"),
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


def _print(out: Console, outcome: Outcome, decides: dict[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from semcache.cli.explanations import print_explanation
    from semcache.tools.demo import chosen_examples

    total, ends = outcome.questions, outcome.ends
    wrong = sum(outcome.wrong.values())
    out.print(
        f"\n[bold]{total} questions[/] to two companies, {_policy(decides)}; misses are "
        "answered by the [italic]offline answerer[/] (a table of true answers, no language "
        "model).\n"
    )
    table = Table(box=None, header_style="bold")
    table.add_column("")
    for name in ("questions", "share", "median time"):
        table.add_column(name, justify="right")
    rows = [("exact hits", "exact"), ("semantic hits", "semantic"), ("misses", "miss")]
    if ends["explore"]:
        rows.append(("asked to learn", "explore"))
    for title, end in rows:
        spent = outcome.milliseconds(end)
        shown = "-" if spent is None else f"{spent:.2f} ms"
        table.add_row(title, str(ends[end]), f"{ends[end] / total:.1%}", shown)
    record = outcome.milliseconds("record")
    table.add_row("  … and stored", "", "", "-" if record is None else f"{record:.2f} ms")
    saved = ends["exact"] + ends["semantic"]
    table.add_row("calls saved", str(saved), f"{saved / total:.1%}", "")
    table.add_row("an oracle would save", str(outcome.repeated), f"{outcome.repeated / total:.1%}")
    table.add_row("wrong answers served", str(wrong), f"{wrong / total:.1%}", "")
    if ends["semantic"]:
        table.add_row("  share of semantic hits", "", f"{wrong / ends['semantic']:.1%}", "")
    table.add_row("  of another tenant", str(outcome.across_tenants), "", "")
    out.print(table)
    for title, example in chosen_examples(outcome):
        question = example.question
        out.print(f"\n[bold underline]{title}[/]  ({question.tenant})")
        print_explanation(example.explanation)
        out.print(f"[bold]true answer[/] {escape(question.answer)}")


def _policy(decides: dict[str, Any]) -> str:
    if decides.get("threshold") is not None:
        return f"threshold {decides['threshold']}"
    return f"at most {decides['max_false_hit_rate']:.0%} of the semantic hits wrong"


COMMANDS = (demo,)
