"""Commands that ask models: ask, providers."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from semcache.assembly import router as routers
from semcache.cli.common import AsJson, CachePath, ago, console, location, opened, print_json
from semcache.errors import ConfigError, RequestError

if TYPE_CHECKING:
    from semcache.config.settings import Settings
    from semcache.router import Router
    from semcache.types import Completion

TaskType = Annotated[
    str | None,
    typer.Option("--task-type", help="Such as bulk_processing; the routes choose by it."),
]
ModelName = Annotated[
    str | None, typer.Option("--model", "-m", help='A model, or "provider/model".')
]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Look nothing up and keep nothing.")]


def router_of(settings: Settings) -> Router:
    """The router of the settings.

    Raises:
        ConfigError: they know no provider.
    """
    router = routers.router_of(settings)
    if router is None:
        raise ConfigError(
            "No provider is set up. Set OPENAI_API_KEY, ANTHROPIC_API_KEY, OPENROUTER_API_KEY or "
            "GEMINI_API_KEY, or write one into semcache.toml:\n"
            "  [providers.local]\n"
            '  kind = "openai"\n'
            '  base_url = "http://127.0.0.1:8080/v1"\n'
            '  model = "the-model"'
        )
    return router


def ask(
    prompt: Annotated[str, typer.Argument(help="What to ask; - reads it from standard input.")],
    cache: CachePath = None,
    no_cache: NoCache = False,
    model: ModelName = None,
    task_type: TaskType = None,
    system: Annotated[str | None, typer.Option("--system", help="The system prompt.")] = None,
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", help="The tenant.")] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Show it as it is written.")] = False,
    as_json: AsJson = False,
) -> None:
    """Ask a model, or the cache: the answer on standard output, where it is from beside it."""
    from semcache.config.settings import load
    from semcache.semantic_cache import SemanticCache

    if stream and as_json:
        raise RequestError("--stream and --json are two ways to print; give one of them.")
    settings = load()
    fields: dict[str, Any] = {
        name: value
        for name, value in (
            ("model", model),
            ("task_type", task_type),
            ("system", system),
            ("namespace", namespace),
        )
        if value is not None
    }
    asked = sys.stdin.read() if prompt == "-" else prompt
    with router_of(settings) as router:
        if no_cache:
            _ask(router, asked, fields, stream=stream, as_json=as_json)
            return
        path = location(cache or settings.path)
        with SemanticCache.from_settings(settings, path=path, router=router) as cached:
            _ask(cached, asked, fields, stream=stream, as_json=as_json)


def _ask(door: Any, prompt: str, fields: dict[str, Any], *, stream: bool, as_json: bool) -> None:
    if stream:
        for piece in door.stream(prompt, **fields):
            typer.echo(str(piece), nl=False)
        typer.echo()
        return
    whole = door.answer if hasattr(door, "answer") else door.complete
    answer: Completion = whole(prompt, **fields)
    if as_json:
        print_json(asdict(answer))
        return
    typer.echo(answer.text)
    console(stderr=True).print(_told(answer), style="dim", soft_wrap=True, markup=False)


def _told(answer: Completion) -> str:
    """Where an answer is from, in one line."""
    usage = answer.usage
    parts = [f"from the cache ({answer.served_from})" if answer.served_from else "asked"]
    parts.append(f"{answer.provider or '?'}/{answer.model or '?'}")
    if usage.prompt_tokens is not None:
        parts.append(f"{usage.prompt_tokens:,} + {usage.completion_tokens or 0:,} tokens")
    if usage.cost_usd is not None:
        verb = "saved " if answer.served_from else ""
        parts.append(f"{verb}${usage.cost_usd:.6f}")
    failed = [f"{a.provider} {a.result}" for a in answer.attempts if a.result != "answered"]
    if failed:
        parts.append(f"after {', '.join(failed)}")
    return " · ".join(parts)


def providers(cache: CachePath = None, as_json: AsJson = False) -> None:
    """Who can be asked: keys, models, prices, limits, breakers, and the routes to them."""
    from semcache.config.settings import load
    from semcache.router.prices import per_million
    from semcache.router.routing import TASK_TYPES

    settings = load()
    with router_of(settings) as router:
        noted = _breakers(cache or settings.path)
        rows = []
        for name, provider in router.providers.items():
            state = router.state()[name]
            price = per_million(provider.default_model, provider.price_list)
            rows.append(
                {
                    "provider": name,
                    "address": getattr(provider, "address", None),
                    "key": getattr(provider, "has_key", None),
                    "model": provider.default_model or None,
                    "usd_per_million_tokens": price,
                    "limits": [str(limit) for limit, _, _ in state.limits],
                    "concurrency": state.places,
                    "breaker": noted.get(name, {}).get("state", state.breaker),
                    "breaker_since": noted.get(name, {}).get("at"),
                }
            )
        routes = [
            {
                "for": route.describe().removeprefix("route for "),
                "targets": list(map(str, route.targets)),
            }
            for route in router.routes
        ]
    if as_json:
        print_json({"providers": rows, "routes": routes, "task_types": list(TASK_TYPES)})
        return
    _show(rows, routes)


def _show(rows: list[dict[str, Any]], routes: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table("provider", "address", "key", "model", "$/M read, written", "limits", "breaker")
    for row in rows:
        price = row["usd_per_million_tokens"]
        limits = [
            *row["limits"],
            *([f"{row['concurrency']} at once"] if row["concurrency"] else []),
        ]
        since = f" ({ago(row['breaker_since'])} ago)" if row["breaker_since"] else ""
        table.add_row(
            row["provider"],
            row["address"] or "-",
            {True: "yes", False: "no", None: "-"}[row["key"]],
            row["model"] or "-",
            "not known" if price is None else f"{price[0]:g}, {price[1]:g}",
            "\n".join(limits) or "none",
            row["breaker"].replace("_", "-") + since,
        )
    ways = Table("route for", "asked in this order")
    for route in routes:
        ways.add_row(route["for"], " → ".join(route["targets"]))
    out = console()
    out.print(table)
    out.print(ways)


def _breakers(path: Any) -> dict[str, Any]:
    """The last turn of each breaker that a process with this cache has noted."""
    if path is None:
        return {}
    try:
        with opened(path) as backend:
            notes = backend.metadata.metas("breaker:")
    except ConfigError:
        return {}
    return {name: json.loads(note) for name, note in notes.items()}


COMMANDS = (ask, providers)
