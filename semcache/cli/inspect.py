"""Commands that look and change nothing: stats, list, show, search, explain."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from semcache.backends.base import ORDERS
from semcache.cli.common import (
    NOTHING,
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
    opened,
    print_json,
    short,
    size,
)
from semcache.cli.explanations import explanation_json, print_explanation
from semcache.errors import RequestError
from semcache.types import Selection

if TYPE_CHECKING:
    from semcache.telemetry.stats import Stats


def stats(cache: CachePath = None, as_json: AsJson = False) -> None:
    """Show what the cache holds and what it has saved."""
    from semcache.inspection import read_stats

    with opened(cache) as backend:
        found = read_stats(backend)
        groups = backend.catalogue.groups()
    if as_json:
        extra = {"lookups": found.lookups, "hit_rate": found.hit_rate}
        by_group = [group._asdict() for group in groups]
        print_json({**asdict(found), **extra, "groups": by_group})
        return
    from rich.markup import escape
    from rich.table import Table

    out = console()
    table = Table(box=None, show_header=False)
    rate = "-" if found.hit_rate is None else f"{found.hit_rate:.1%}"
    missed = {reason: n for reason, n in found.misses.items() if reason != "bypassed"}
    misses = ", ".join(f"{reason} {count:,}" for reason, count in missed.items())
    for name, value in (
        ("entries", f"{found.entries:,} ({size(found.stored_bytes)} on disk)"),
        ("embedder", found.embedder or "none yet"),
        ("lookups", f"{found.lookups:,}"),
        ("hit rate", f"{rate} ({found.exact_hits:,} exact, {found.semantic_hits:,} semantic)"),
        ("shared", f"{found.shared:,} answered by another caller's call under way"),
        ("misses", f"{sum(missed.values()):,}" + (f" ({misses})" if misses else "")),
        ("saved", _saved(found)),
        *_learned(found),
        ("faults", ", ".join(f"{part} {n:,}" for part, n in found.faults.items()) or "none"),
    ):
        table.add_row(f"[bold]{name}[/]", value)
    out.print(table)
    if groups:
        listed = Table("namespace", "model", box=None, header_style="bold", pad_edge=True)
        listed.add_column("entries", justify="right")
        listed.add_column("hits", justify="right")
        for namespace, model, entries, hits in groups[:20]:
            listed.add_row(escape(namespace), escape(model) or "-", f"{entries:,}", f"{hits:,}")
        out.print()
        out.print(listed)
        if len(groups) > 20:
            out.print(f"  … and {len(groups) - 20} more")


def _saved(found: Stats) -> str:
    text = f"{found.calls_saved:,} calls, {found.tokens_saved:,} tokens, "
    return text + f"{found.usd_saved:.2f} USD where known"


def _learned(found: Stats) -> list[tuple[str, str]]:
    """What is known of the share of wrong answers, and what knowing it has cost."""
    if found.bound is None:
        return []
    interval = found.false_hit_interval
    measured = "not measured yet"
    if interval is not None:
        rate = found.served_wrong / found.served_labels
        measured = (
            f"{rate:.1%} ({interval[0]:.1%} to {interval[1]:.1%}), {found.served_wrong} wrong of "
            f"{found.served_labels:,} that were asked all the same"
        )
    expected = found.expected_false_hit_rate
    told = "nothing is served yet" if expected is None else f"{expected:.2%} expected"
    labels = ", ".join(f"{kind} {count:,}" for kind, count in found.labels.items()) or "none"
    bought = (
        f"{found.explorations + found.audits:,} calls ({found.explorations:,} explorations, "
        f"{found.audits:,} audits), {found.tokens_bought:,} tokens, {found.usd_bought:.2f} USD"
    )
    return [
        ("false hits", f"{measured}; {told}, at most {found.bound:.1%} asked for"),
        ("labels", labels),
        ("bought with", bought),
    ]


def list_(
    cache: CachePath = None,
    namespace: Namespace = None,
    model: Model = None,
    tag: Tag = None,
    order: Annotated[
        str,
        typer.Option(
            help="newest, oldest, most_hits, least_recently_used or least_frequently_used."
        ),
    ] = "newest",
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """List entries."""
    if order not in ORDERS:
        raise typer.BadParameter(f"it is one of {', '.join(ORDERS)}", param_hint="--order")
    selection = Selection(namespace, model, tag)
    with opened(cache) as backend:
        chosen: Any = order
        entries = backend.catalogue.select(selection, order=chosen, limit=limit)
        total = backend.catalogue.count(selection)
    if as_json:
        print_json([entry_json(entry) for entry in entries])
    elif entries:
        _print_entries([(entry, None) for entry in entries])
        if total > len(entries):
            console(stderr=True).print(f"{len(entries)} of {total:,}; see more with --limit")
    if not entries:
        console(stderr=True).print("no entries")
        raise typer.Exit(NOTHING)


def _print_entries(rows: list[tuple[Any, float | None]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    out = console()
    table = Table(box=None, header_style="bold")
    table.add_column("id", justify="right")
    if any(similarity is not None for _, similarity in rows):
        table.add_column("similarity", justify="right")
    for name in ("namespace", "model"):
        table.add_column(name)
    for name in ("hits", "age"):
        table.add_column(name, justify="right")
    table.add_column("question", ratio=1)
    table.add_column("answer", ratio=1)
    width = max((out.width - 50) // 2, 20)
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
    entry_id: Annotated[int, typer.Argument(metavar="ID")],
    cache: CachePath = None,
    as_json: AsJson = False,
) -> None:
    """Show one entry whole."""
    with opened(cache) as backend:
        entry = backend.catalogue.get_many([entry_id]).get(entry_id)
        if entry is None:
            console(stderr=True).print(f"no entry {entry_id}")
            raise typer.Exit(NOTHING)
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
        ("embedded", "yes" if embedded else "no: found by the exact tier only"),
        ("exact key", entry.exact_key.hex()),
        ("scope", entry.scope.hex()),
    ]
    if completion.finish_reason or completion.usage.prompt_tokens is not None:
        usage = completion.usage
        rows.append(("finished", completion.finish_reason or "-"))
        rows.append(("tokens", f"{usage.prompt_tokens} + {usage.completion_tokens}"))
    for name, value in rows:
        typer.echo(f"{name:>10}  {value}")
    if summary:
        typer.echo(f"{'request':>10}  {json.dumps(summary, ensure_ascii=False)}")
    typer.echo(f"\n{entry.question or '(no question)'}\n\n{completion.text}")
    if completion.payload_kind is not None:
        typer.echo(f"\n({completion.payload_kind}) {json.dumps(completion.payload)[:2000]}")


def search(
    text: Annotated[str, typer.Argument(help="What to look for.")],
    cache: CachePath = None,
    namespace: Namespace = None,
    limit: Limit = 10,
    embedder_name: EmbedderName = None,
    as_json: AsJson = False,
) -> None:
    """Find the stored questions nearest to a text, in every scope."""
    from semcache import inspection
    from semcache.assembly.embedding import choose_embedder

    with opened(cache) as backend:
        chosen = choose_embedder(embedder_name, backend)
        found = inspection.search(backend, chosen, text, namespace=namespace, limit=limit)
    if as_json:
        print_json([{**entry_json(c.entry), "similarity": c.similarity} for c in found])
    elif found:
        _print_entries([(candidate.entry, candidate.similarity) for candidate in found])
    if not found:
        console(stderr=True).print("no entries with a vector")
        raise typer.Exit(NOTHING)


def explain(
    text: Annotated[str | None, typer.Argument(help="The prompt.")] = None,
    cache: CachePath = None,
    namespace: Annotated[str | None, typer.Option("--namespace", "-n")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m")] = None,
    system: Annotated[str | None, typer.Option(help="The system prompt.")] = None,
    messages: Annotated[
        Path | None, typer.Option(help="A JSON file with chat messages, instead of the prompt.")
    ] = None,
    param: Annotated[
        list[str] | None, typer.Option(help='NAME=JSON, such as temperature=0.2 or function="f".')
    ] = None,
    like: Annotated[
        int | None, typer.Option(metavar="ID", help="Ask in the scope of this entry.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="The fixed threshold that the application uses, if any.")
    ] = None,
    max_false_hit_rate: Annotated[
        float | None, typer.Option(help="The bound that the application uses.")
    ] = None,
    embedder_name: EmbedderName = None,
    as_json: AsJson = False,
) -> None:
    """Show all that a lookup would see and decide, without changing anything."""
    from semcache.errors import ConfigError
    from semcache.keys import keys
    from semcache.semantic_cache import SemanticCache
    from semcache.types import Scope

    with opened(cache):
        pass  # a cache that is not there is an error, not a new one
    fields: dict[str, Any] = {"namespace": namespace, "model": model, "system": system}
    if messages is not None:
        fields["messages"] = _json_file(messages)
    fields["params"] = _params(param or [])
    given = {name: value for name, value in fields.items() if value}
    with SemanticCache(
        location(cache),
        threshold=threshold,
        max_false_hit_rate=max_false_hit_rate,
        embedder=embedder_name,
    ) as looked_into:
        query = looked_into.query(text, **given)
        if like is not None:
            entries = looked_into.entries(ids=(like,))
            if not entries:
                raise ConfigError(f"There is no entry {like}.")
            scope = Scope(
                entries[0].scope, {"as of entry": like, "namespace": entries[0].namespace}
            )
            key = keys.exact_key(scope.digest, query.question)
            query = type(query)(query.request, key, scope, query.question)
        found = looked_into.explain_query(query)
    if as_json:
        print_json(explanation_json(found))
    else:
        print_explanation(found)


def _params(given: list[str]) -> dict[str, Any]:
    params: dict[str, Any] = {}
    for item in given:
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
        raise RequestError(f"{path} holds no JSON: {error}.") from None


COMMANDS = (stats, list_, show, search, explain)
