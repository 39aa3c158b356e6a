"""The commands `semcache config show` and `semcache config check`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from semcache.cli.common import NOTHING_FOUND, AsJson, console, print_json
from semcache.cli.terminal import echo

if TYPE_CHECKING:
    from semcache.config.sections import RouteSettings
    from semcache.config.settings import Settings


def config(
    what: Annotated[
        Literal["show", "check"],
        typer.Argument(help="show prints the settings; check looks for problems in them."),
    ] = "show",
    everything: Annotated[
        bool, typer.Option("--all", help="Also show settings that have no value.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the settings and where each comes from, with secrets masked, or check them."""
    if what == "show":
        _show(everything=everything, as_json=as_json)
    else:
        _check(as_json=as_json)


def _show(*, everything: bool, as_json: bool) -> None:
    from semcache.config.settings import Settings, load, origins

    settings = load()
    empty: tuple[object, ...] = (None, (), {})
    options = {*Settings.cache_options(), "path"}
    shown = [
        origin
        for origin in origins(settings)
        if everything or origin.name in options or origin.value not in empty
    ]
    if as_json:
        print_json({o.name: {"value": o.value, "source": o.source} for o in shown})
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table("setting", "value", "from", box=None, pad_edge=False)
    for origin in shown:
        style = "dim" if origin.source == "default" else None
        for name, value in _rows(origin.name, origin.value, settings):
            table.add_row(escape(name), escape(value), escape(origin.source), style=style)
    console().print(table)


def _rows(name: str, value: object, settings: Settings) -> list[tuple[str, str]]:
    """The rows of a setting: one for each route, one for anything else."""
    if name == "routes":
        return [(f"routes[{i}]", _route(r)) for i, r in enumerate(settings.routes)]
    return [(name, _in_force(name, settings) if value is None else str(value))]


def _route(route: RouteSettings) -> str:
    conditions = [
        f"{name} {value}"
        for name, value in route.model_dump(exclude={"targets"}).items()
        if value not in (None, (), [], {})
    ]
    return f"{', '.join(map(str, route.targets))} ({', '.join(conditions) or 'all requests'})"


def _in_force(name: str, settings: Settings) -> str:
    """What applies if a setting has no value."""
    from semcache.cli.common import default_location
    from semcache.options import GROUPS, MAX_FALSE_HIT_RATE

    if name == "max_false_hit_rate":
        return str(MAX_FALSE_HIT_RATE) if settings.threshold is None else "not used"
    shown = {
        "path": f"{default_location()} (for ask and batch)",
        "threshold": "not used: max_false_hit_rate decides",
        "embedder": "all-MiniLM-L6-v2",
    }
    if name in shown:
        return shown[name]
    group = next((g for g in GROUPS.values() if name in g.__dataclass_fields__), None)
    default = None if group is None else group.__dataclass_fields__[name].default
    return "none" if default is None else str(default)


def _check(*, as_json: bool) -> None:
    from semcache.assembly.router import problems as router_problems
    from semcache.config.settings import load, unknown_variables
    from semcache.errors import ConfigError

    problems: list[str] = []
    try:
        settings = load()
    except ConfigError as error:
        problems += error.problems
    else:
        problems += [*router_problems(settings), *_option_problems(settings)]
        if not settings.providers and not as_json:
            echo("no provider is set up: on a miss, your program must make the call itself")
    problems += unknown_variables()
    if as_json:
        print_json({"problems": problems})
    for problem in () if as_json else problems:
        echo(f"PROBLEM: {problem}")
    if problems:
        raise typer.Exit(NOTHING_FOUND)
    if not as_json:
        echo("the settings are valid")


def _option_problems(settings: Settings) -> list[str]:
    """What is wrong with the options of the cache, group by group."""
    from semcache.assembly.verification import check_trust
    from semcache.errors import ConfigError
    from semcache.options import GROUPS, Trust

    given = {name: getattr(settings, name) for name in settings.cache_options()}
    problems = []
    for group in GROUPS.values():
        fields = {
            n: v for n, v in given.items() if n in group.__dataclass_fields__ and v is not None
        }
        try:
            options = group(**fields)
            if isinstance(options, Trust):
                check_trust(options)
        except ConfigError as error:
            problems.append(str(error))
    return problems


COMMANDS = (config,)
