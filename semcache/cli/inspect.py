"""Commands that only read a cache: stats, list, show, search, explain."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from semcache.backends.base import ORDERS
from semcache.cli.common import (
    MISS_REASONS,
    NOTHING_FOUND,
    AsJson,
    CachePath,
    EmbedderName,
    Limit,
    Model,
    Namespace,
    Tag,
    ago,
    console,
    entry_json,
    location,
    moment,
    open_existing,
    print_json,
    short,
    size,
)
from semcache.cli.explanations import (
    explanation_json,
    print_explanation,
    print_other_scopes,
    print_same_question,
)
from semcache.cli.terminal import echo, json_text
from semcache.errors import RequestError
from semcache.options import Trust, description
from semcache.types import Selection

if TYPE_CHECKING:
    from semcache.telemetry.stats import Stats


def stats(cache: CachePath = None, as_json: AsJson = False) -> None:
    """Show what the cache holds and what it has saved."""
    from semcache.inspection import read_stats

    with open_existing(cache) as backend:
        totals = read_stats(backend)
        groups = backend.catalogue.groups()
    if as_json:
        extra = {"lookups": totals.lookups, "hit_rate": totals.hit_rate}
        by_group = [group._asdict() for group in groups]
        print_json({**asdict(totals), **extra, "groups": by_group})
        return
    from rich.markup import escape
    from rich.table import Table

    out = console()
    table = Table(box=None, show_header=False)
    rate = "-" if totals.hit_rate is None else f"{totals.hit_rate:.1%}"
    missed = {reason: n for reason, n in totals.misses.items() if reason != "bypassed"}
    misses = ", ".join(
        f"{count:,} {MISS_REASONS.get(reason, reason)}" for reason, count in missed.items()
    )
    for name, value in (
        ("entries", f"{totals.entries:,} ({size(totals.stored_bytes)} on disk)"),
        ("embedder", totals.embedder or "none yet"),
        ("lookups", f"{totals.lookups:,}"),
        ("hit rate", f"{rate} ({totals.exact_hits:,} exact, {totals.semantic_hits:,} semantic)"),
        *(
            [("shared", f"{totals.shared:,} answered by another caller's call in flight")]
            if totals.shared
            else []
        ),
        ("misses", f"{sum(missed.values()):,}" + (f" ({misses})" if misses else "")),
        ("saved", _saved(totals)),
        *_false_hit_rows(totals),
        ("not stored", _labelled(totals.not_stored)),
        ("faults", _labelled(totals.faults)),
    ):
        table.add_row(f"[bold]{name}[/]", escape(value))
    out.print(table)
    if totals.without_hits:
        out.print("\n[bold]functions that never had a hit[/]")
        for function, why in totals.without_hits.items():
            out.print(f"  {escape(function)}: {escape(why)}", soft_wrap=True)
    if groups:
        group_table = Table("namespace", "model", box=None, header_style="bold", pad_edge=True)
        group_table.add_column("entries", justify="right")
        group_table.add_column("hits", justify="right")
        for namespace, model, entries, hits in groups[:20]:
            cells = (escape(namespace), escape(model) or "-", f"{entries:,}", f"{hits:,}")
            group_table.add_row(*cells)
        out.print()
        out.print(group_table)
        if len(groups) > 20:
            out.print(f"  … and {len(groups) - 20} more")


def _labelled(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{label} {count:,}" for label, count in counts.items()) or "none"


def _saved(totals: Stats) -> str:
    text = f"{totals.calls_saved:,} calls, {totals.tokens_saved:,} tokens"
    return f"{text}, {totals.usd_saved:.2f} USD" if totals.usd_saved else text


_LABELLED = {
    "miss": "after misses",
    "explore": "by asking before serving",
    "audit": "by asking after serving",
    "review": "reviewed by people",
    "feedback": "reported",
}
"""How two answers to similar questions came to be compared, by the kind of the label."""


def _false_hit_rows(totals: Stats) -> list[tuple[str, str]]:
    """The measured and expected false hit rate, and what its labels have cost."""
    if totals.bound is None:
        return []
    interval = totals.false_hit_interval
    measured = "not measured yet"
    if interval is not None:
        rate = totals.served_wrong / totals.served_labels
        measured = (
            f"{rate:.1%} ({interval[0]:.1%} to {interval[1]:.1%}), {totals.served_wrong} wrong of "
            f"{totals.served_labels:,} checked hits"
        )
    rate_expected = totals.expected_false_hit_rate
    expected = "nothing is served yet" if rate_expected is None else f"{rate_expected:.2%} expected"
    labels = ", ".join(
        f"{count:,} {_LABELLED.get(kind, kind)}" for kind, count in totals.labels.items()
    )
    cost = (
        f"{totals.explorations + totals.audits:,} calls to the model, "
        f"{totals.tokens_bought:,} tokens"
    )
    if totals.usd_bought:
        cost += f", {totals.usd_bought:.2f} USD"
    return [
        ("false hits", f"{measured}; {expected}, at most {totals.bound:.1%} allowed"),
        ("compared", labels or "no answers yet"),
        ("cost of labels", cost),
    ]


def list_(
    cache: CachePath = None,
    namespace: Namespace = None,
    model: Model = None,
    tag: Tag = None,
    order: Annotated[
        str,
        typer.Option(
            help="One of newest, oldest, most_hits, least_recently_used, least_frequently_used."
        ),
    ] = "newest",
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """List entries, filtered by namespace, model or tag."""
    if order not in ORDERS:
        raise typer.BadParameter(f"must be one of {', '.join(ORDERS)}", param_hint="--order")
    selection = Selection(namespace, model, tag)
    with open_existing(cache) as backend:
        chosen: Any = order
        entries = backend.catalogue.select(selection, order=chosen, limit=limit)
        total = backend.catalogue.count(selection)
    if as_json:
        print_json([entry_json(entry) for entry in entries])
    elif entries:
        _print_entries([(entry, None) for entry in entries])
        if total > len(entries):
            console(stderr=True).print(f"{len(entries)} of {total:,}; show more with --limit")
    if not entries:
        console(stderr=True).print("no entries")
        raise typer.Exit(NOTHING_FOUND)


def _print_entries(rows: list[tuple[Any, float | None]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    out = console()
    table = Table(box=None, header_style="bold")
    table.add_column("id", justify="right", no_wrap=True)
    similar = any(similarity is not None for _, similarity in rows)
    if similar:
        table.add_column("similarity", justify="right", no_wrap=True)
    for name in ("namespace", "model"):
        table.add_column(name, no_wrap=True, max_width=16, overflow="ellipsis")
    for name in ("hits", "age"):
        table.add_column(name, justify="right", no_wrap=True)
    width = max((out.width - 40 - 14 * similar) // 2, 15)
    for name in ("question", "answer"):
        table.add_column(name, no_wrap=True, max_width=width, overflow="ellipsis")
    for entry, similarity in rows:
        cells = [str(entry.id)]
        if similarity is not None:
            cells.append(f"{similarity:.4f}")
        cells += [entry.namespace, entry.model or "-", str(entry.hits), ago(entry.created_at)]
        cells += [
            short(entry.question, width) or "(no question)",
            short(entry.completion.text, width),
        ]
        table.add_row(*map(escape, cells))
    out.print(table)


def show(
    entry_id: Annotated[int, typer.Argument(metavar="ID", help="The id of the entry.")],
    cache: CachePath = None,
    as_json: AsJson = False,
) -> None:
    """Show one entry in full."""
    with open_existing(cache) as backend:
        entry = backend.catalogue.get_many([entry_id]).get(entry_id)
        if entry is None:
            console(stderr=True).print(f"no entry {entry_id}")
            raise typer.Exit(NOTHING_FOUND)
        details = backend.catalogue.details([entry_id])[entry_id]
    summary, tags, embedded = details.summary, details.tags, details.vector is not None
    if as_json:
        more = {"tags": list(tags), "embedded": embedded, "request": summary}
        print_json({**entry_json(entry), **more, "completion": asdict(entry.completion)})
        return
    completion = entry.completion
    rows = [
        ("id", str(entry.id)),
        ("namespace", entry.namespace),
        ("model", entry.model or "-"),
        ("tags", ", ".join(tags) or "-"),
        ("created", moment(entry.created_at)),
        ("expires", moment(entry.expires_at)),
        ("hits", f"{entry.hits} (last: {moment(entry.last_hit_at)})"),
        ("embedded", "yes" if embedded else "no: served by the exact tier only"),
        ("exact key", entry.exact_key.hex()),
        ("scope", entry.scope.hex()),
    ]
    if completion.finish_reason or completion.usage.prompt_tokens is not None:
        usage = completion.usage
        rows.append(("finished", completion.finish_reason or "-"))
        rows.append(("tokens", f"{usage.prompt_tokens} + {usage.completion_tokens}"))
    for name, value in rows:
        echo(f"{name:>10}  {value}")
    if summary:
        echo(f"{'request':>10}  {json_text(summary)}")
    echo(f"\n{entry.question or '(no question)'}\n\n{completion.text}")
    if completion.payload_kind is not None:
        echo(f"\n({completion.payload_kind}) {json_text(completion.payload)[:2000]}")


def search(
    text: Annotated[str, typer.Argument(help="The text to compare with.")],
    cache: CachePath = None,
    namespace: Namespace = None,
    limit: Limit = 10,
    embedder_name: EmbedderName = None,
    as_json: AsJson = False,
) -> None:
    """Find the stored questions that are nearest to a text, in all scopes."""
    from semcache import inspection
    from semcache.assembly.embedding import choose_embedder

    with open_existing(cache) as backend:
        embedder = choose_embedder(embedder_name, backend)
        nearest = inspection.search(backend, embedder, text, namespace=namespace, limit=limit)
    if as_json:
        print_json([{**entry_json(c.entry), "similarity": c.similarity} for c in nearest])
    elif nearest:
        _print_entries([(candidate.entry, candidate.similarity) for candidate in nearest])
    if not nearest:
        console(stderr=True).print("no entries with an embedding")
        raise typer.Exit(NOTHING_FOUND)


def explain(
    text: Annotated[str | None, typer.Argument(help="The prompt.")] = None,
    cache: CachePath = None,
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", help="The namespace of the request.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="The model of the request.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="The system prompt.")] = None,
    messages: Annotated[
        Path | None, typer.Option(help="A JSON file with chat messages, instead of the prompt.")
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(
            help="A parameter of the request, NAME=JSON, such as temperature=0.2; "
            "may be given several times."
        ),
    ] = None,
    like: Annotated[
        int | None, typer.Option(metavar="ID", help="Use the scope of this entry for the lookup.")
    ] = None,
    threshold: Annotated[float | None, typer.Option(help=description(Trust, "threshold"))] = None,
    max_false_hit_rate: Annotated[
        float | None, typer.Option(help=description(Trust, "max_false_hit_rate"))
    ] = None,
    embedder_name: EmbedderName = None,
    as_json: AsJson = False,
) -> None:
    """Show what a lookup would find and decide, and why, without changing anything."""
    from semcache import inspection
    from semcache.errors import ConfigError
    from semcache.keys import keys
    from semcache.options import Matching
    from semcache.semantic_cache import SemanticCache
    from semcache.types import Scope

    if like is not None and namespace is not None:
        raise RequestError("--like looks in the scope of an entry, with its namespace; drop -n.")
    policy: dict[str, Any] = {"threshold": threshold, "max_false_hit_rate": max_false_hit_rate}
    with open_existing(cache) as backend:  # a missing cache is an error; it is not created
        if threshold is None and max_false_hit_rate is None:
            policy = inspection.policy_of(backend)
    matching = Matching(embedder=embedder_name, semantic=policy.pop("semantic", True))
    fields: dict[str, Any] = {"namespace": namespace, "model": model, "system": system}
    if messages is not None:
        fields["messages"] = _json_file(messages)
    fields["params"] = _params(param or [])
    fields = {name: value for name, value in fields.items() if value}
    with SemanticCache(
        location(cache),
        matching=matching,
        **policy,
    ) as semantic_cache:
        query = semantic_cache.query(text, **fields)
        if like is not None:
            entries = semantic_cache.entries(ids=(like,))
            if not entries:
                raise ConfigError(f"There is no entry {like}.")
            scope = Scope(
                entries[0].scope, {"same scope as entry": like, "namespace": entries[0].namespace}
            )
            key = keys.exact_key(scope.digest, query.question)
            query = type(query)(query.request, key, scope, query.question)
        explanation = semantic_cache.explain_query(query)
    found = inspection.Elsewhere([], [])
    if explanation.exact is None:
        with open_existing(cache) as backend:
            found = inspection.elsewhere(backend, query)
    others = [] if explanation.neighbours else found.scopes
    if as_json:
        print_json(
            {
                **explanation_json(explanation),
                "same_question": [entry_json(entry) for entry in found.same_question],
                "other_scopes": [asdict(one) for one in others],
            }
        )
    else:
        print_explanation(explanation)
        print_same_question(found.same_question)
        print_other_scopes(others)


def _params(items: list[str]) -> dict[str, Any]:
    params: dict[str, Any] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals:
            raise RequestError(f"--param {item!r} has no value; write NAME=VALUE.")
        try:
            params[name] = json.loads(value)
        except ValueError:
            params[name] = value
    return params


def _json_file(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RequestError(f"{path} cannot be read as JSON: {error}.") from None


COMMANDS = (stats, list_, show, search, explain)
