"""Commands that ask models: ask, providers."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from semcache.assembly import router as routers
from semcache.cli.common import AsJson, CachePath, ago, console, location, open_existing, print_json
from semcache.cli.terminal import echo
from semcache.errors import ConfigError, RequestError

if TYPE_CHECKING:
    from semcache.config.settings import Settings
    from semcache.router import Router
    from semcache.types import Completion

TaskType = Annotated[
    str | None,
    typer.Option(
        "--task-type", help="The kind of task, such as bulk_processing; routes are chosen by it."
    ),
]
ModelName = Annotated[
    str | None, typer.Option("--model", "-m", help='The model: "model" or "provider/model".')
]
NoCache = Annotated[
    bool, typer.Option("--no-cache", help="Neither read from the cache nor write to it.")
]


def router_of(settings: Settings) -> Router:
    """The router that the settings describe.

    Raises:
        ConfigError: no provider is set up.
    """
    router = routers.router_of(settings)
    if router is None:
        raise ConfigError(
            "No provider is set up. Set OPENAI_API_KEY, ANTHROPIC_API_KEY, OPENROUTER_API_KEY or "
            "GEMINI_API_KEY, or describe a provider in semcache.toml:\n"
            "  [providers.local]\n"
            '  kind = "openai"\n'
            '  base_url = "http://127.0.0.1:8080/v1"\n'
            '  model = "the-model"'
        )
    return router


def ask(
    prompt: Annotated[str, typer.Argument(help="The prompt; - reads it from standard input.")],
    cache: CachePath = None,
    no_cache: NoCache = False,
    model: ModelName = None,
    task_type: TaskType = None,
    system: Annotated[str | None, typer.Option("--system", help="The system prompt.")] = None,
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", help="The namespace to use in the cache.")
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Print the answer as it arrives.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Answer a prompt from the cache, or else ask a model.

    The answer goes to standard output; where it came from goes to standard error.
    """
    from semcache.config.settings import load
    from semcache.semantic_cache import SemanticCache

    if stream and as_json:
        raise RequestError("--stream and --json cannot be combined; give one of them.")
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
    text = sys.stdin.read() if prompt == "-" else prompt
    with router_of(settings) as router:
        if no_cache:
            _ask(router, text, fields, stream=stream, as_json=as_json)
            return
        path = location(cache, create=True)
        with SemanticCache.from_settings(settings, path=path, router=router) as cached:
            _ask(cached, text, fields, stream=stream, as_json=as_json)


def _ask(service: Any, prompt: str, fields: dict[str, Any], *, stream: bool, as_json: bool) -> None:
    """Ask a cache or a router, and print the answer."""
    if stream:
        for chunk in service.stream(prompt, **fields):
            echo(str(chunk), nl=False)
        echo()
        return
    complete = service.answer if hasattr(service, "answer") else service.complete
    answer: Completion = complete(prompt, **fields)
    if as_json:
        print_json(asdict(answer))
        return
    echo(answer.text)
    console(stderr=True).print(_origin(answer), style="dim", soft_wrap=True, markup=False)


def _origin(answer: Completion) -> str:
    """Where an answer came from and what it cost, in one line."""
    usage = answer.usage
    parts = [f"from the cache ({answer.served_from})" if answer.served_from else "from the model"]
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
    """List the providers: keys, models, prices, limits, breakers, and the routes to them."""
    from semcache.config.settings import load
    from semcache.router.prices import per_million
    from semcache.router.routing import TASK_TYPES

    settings = load()
    with router_of(settings) as router:
        breakers = _breakers(cache or settings.path)
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
                    "breaker": breakers.get(name, {}).get("state", state.breaker),
                    "breaker_since": breakers.get(name, {}).get("at"),
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
    from rich.markup import escape
    from rich.table import Column, Table

    address = Column("address", overflow="fold")
    table = Table("provider", address, "key", "model", "$/M tokens in, out", "limits", "breaker")
    for row in rows:
        price = row["usd_per_million_tokens"]
        limits = [
            *row["limits"],
            *([f"{row['concurrency']} concurrent"] if row["concurrency"] else []),
        ]
        since = f" ({ago(row['breaker_since'])} ago)" if row["breaker_since"] else ""
        cells = (
            row["provider"],
            row["address"] or "-",
            {True: "yes", False: "no", None: "-"}[row["key"]],
            row["model"] or "-",
            "not known" if price is None else f"{price[0]:g}, {price[1]:g}",
            "\n".join(limits) or "none",
            row["breaker"].replace("_", "-") + since,
        )
        table.add_row(*map(escape, cells))
    route_table = Table("route for", "targets, in this order")
    for route in routes:
        route_table.add_row(escape(route["for"]), escape(" → ".join(route["targets"])))
    out = console()
    out.print(table)
    out.print(route_table)


def _breakers(path: Any) -> dict[str, Any]:
    """The latest state of each breaker, as recorded by the processes that use this cache."""
    if path is None:
        return {}
    try:
        with open_existing(path) as backend:
            states = backend.metadata.metas("breaker:")
    except ConfigError:
        return {}
    return {name: json.loads(state) for name, state in states.items()}


COMMANDS = (ask, providers)
