"""The command `semcache demo`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from semcache.backends.opening import backend_kind
from semcache.cli.common import AsJson, console, nonempty_path, print_json, progress
from semcache.options import Trust, description

if TYPE_CHECKING:
    from rich.console import Console

    from semcache.tools.demo import Outcome, Question

_BAR = 40
"""Characters of the longest bar in the picture."""


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
    """Send a day of support questions through a real cache; needs no API key and no network."""
    from semcache.errors import ConfigError
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
        asked = stream.questions()
        outcome = _run(path, policy, asked, "asking", explain=True)
        fixed = {
            at: _run(Path(temporary) / f"at-{at}", {"threshold": at}, asked, f"threshold {at:.2f}")
            for at in (() if threshold is not None else stream.FIXED_THRESHOLDS)
        }
    if as_json:
        print_json(_as_json(outcome, fixed, policy))
    else:
        _print(out, outcome, fixed, policy)
        if cache is not None:
            out.print(f"\nThe cache was kept; inspect it with: semcache stats --cache {cache}")


def _run(
    path: Path, policy: dict[str, Any], asked: list[Question], title: str, *, explain: bool = False
) -> Outcome:
    from semcache.semantic_cache import SemanticCache
    from semcache.tools.demo import run

    with SemanticCache(path, hooks=(), **policy) as cached, progress(title) as bar:
        for outcome in run(cached, asked, explain=explain):
            bar(outcome.questions, len(asked))
    return outcome


def _as_json(
    outcome: Outcome, fixed: dict[float, Outcome], policy: dict[str, Any]
) -> dict[str, Any]:
    return {
        "questions": outcome.questions,
        "threshold": policy.get("threshold"),
        "max_false_hit_rate": policy.get("max_false_hit_rate"),
        **_counted(outcome),
        "answered_before": outcome.repeated,
        "asked_before_in_the_same_words": outcome.exact_repeats,
        "median_ms": {what: outcome.median_ms(what) for what in outcome.seconds},
        "fixed_thresholds": [{"threshold": at, **_counted(o)} for at, o in fixed.items()],
    }


def _counted(outcome: Outcome) -> dict[str, Any]:
    return {
        "exact_hits": outcome.results["exact"],
        "semantic_hits": outcome.semantic_hits,
        "misses": outcome.results["miss"],
        "explored": outcome.results["explore"],
        "wrong_answers_served": sum(outcome.wrong.values()),
        "wrong_by_kind": dict(+outcome.wrong),
        "across_tenants": outcome.across_tenants,
        "calls_saved": outcome.calls_saved,
        "halves": [
            {"semantic_hits": half.semantic_hits, "wrong": half.wrong} for half in outcome.halves
        ],
    }


def _print(
    out: Console, outcome: Outcome, fixed: dict[float, Outcome], policy: dict[str, Any]
) -> None:
    from rich.markup import escape

    from semcache.cli.explanations import print_explanation
    from semcache.tools.demo import choose_examples

    out.print(
        f"\n[bold]{outcome.questions} questions[/] to two companies; misses are answered by the "
        "[italic]offline answerer[/] (a table of correct answers, not a language model). "
        f"{outcome.exact_repeats} repeat an earlier question word for word, and "
        f"{outcome.repeated - outcome.exact_repeats} in other words.\n"
    )
    if fixed:
        out.print(
            f"At most {policy['max_false_hit_rate']:.0%} of semcache's semantic hits may be wrong. "
            "For comparison, caches with a fixed similarity threshold:\n"
        )
    columns = {_name(policy): outcome, **{f"at {at:.2f}": o for at, o in fixed.items()}}
    out.print(_table(columns))
    out.print("\n[bold]semantic hits[/]  ([green]█[/] right, [red]▒[/] wrong)")
    _draw(out, columns)
    out.print(
        f"\nMedian time of an exact hit {_duration(outcome.median_ms('exact'))}, a semantic hit "
        f"{_duration(outcome.median_ms('semantic'))}, a miss "
        f"{_duration(outcome.median_ms('miss'))}; storing an answer takes "
        f"{_duration(outcome.median_ms('record'))}."
    )
    for title, example in choose_examples(outcome):
        question = example.question
        out.print(f"\n[bold underline]{title}[/]  ({question.tenant})")
        print_explanation(example.explanation)
        out.print(f"[bold]correct answer[/] {escape(question.answer)}")


def _table(columns: dict[str, Outcome]) -> Any:
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    rows: dict[str, Callable[[Outcome], str]] = {
        "exact hits": lambda o: str(o.results["exact"]),
        "semantic hits": lambda o: str(o.semantic_hits),
        "  wrong": lambda o: _share(o.wrong_semantic_hits, o.semantic_hits),
        "  in the first half": lambda o: _of(o.halves[0].wrong, o.halves[0].semantic_hits),
        "  in the second half": lambda o: _of(o.halves[1].wrong, o.halves[1].semantic_hits),
        "from another tenant": lambda o: str(o.across_tenants),
        "calls to the model": lambda o: str(o.questions - o.calls_saved),
    }
    for title, cell in rows.items():
        table.add_row(title, *(cell(one) for one in columns.values()))
    return table


def _draw(out: Console, columns: dict[str, Outcome]) -> None:
    """A bar for each policy: right answers, and then wrong ones in another shade."""
    most = max(1, *(one.semantic_hits for one in columns.values()))
    for name, one in columns.items():
        wrong = -(-one.wrong_semantic_hits * _BAR // most)
        right = round((one.semantic_hits - one.wrong_semantic_hits) * _BAR / most)
        out.print(f"{name:>14}  [green]{'█' * right}[/][red]{'▒' * wrong}[/]", highlight=False)


def _share(part: int, whole: int) -> str:
    return f"{part} ({part / whole:.0%})" if whole else "0"


def _of(part: int, whole: int) -> str:
    return f"{part} of {whole}"


def _name(policy: dict[str, Any]) -> str:
    if policy.get("threshold") is not None:
        return f"at {policy['threshold']:.2f}"
    return f"semcache, {policy['max_false_hit_rate']:.0%}"


def _duration(milliseconds: float | None) -> str:
    return "-" if milliseconds is None else f"{milliseconds:.2f} ms"


COMMANDS = (demo,)
