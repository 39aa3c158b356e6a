"""semcache config show, semcache config check"""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from semcache.cli.common import NOTHING, AsJson, console, print_json


def config(
    what: Annotated[Literal["show", "check"], typer.Argument(help="show, or check")],
    everything: Annotated[
        bool, typer.Option("--all", help="Show also what is not set and has no default.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the settings and where each comes from, secrets masked; or say what is wrong."""
    if what == "show":
        _show(everything=everything, as_json=as_json)
    else:
        _check(as_json=as_json)


def _show(*, everything: bool, as_json: bool) -> None:
    from semcache.config.settings import load, origins

    empty: tuple[object, ...] = (None, (), {})
    found = [o for o in origins(load()) if everything or o.value not in empty]
    if as_json:
        print_json({o.name: {"value": o.value, "source": o.source} for o in found})
        return
    from rich.table import Table

    table = Table("setting", "value", "from")
    for origin in found:
        style = "dim" if origin.source == "default" else None
        table.add_row(origin.name, str(origin.value), origin.source, style=style)
    console().print(table)


def _check(*, as_json: bool) -> None:
    from semcache.assembly.router import problems
    from semcache.config.settings import load, unknown_variables
    from semcache.errors import ConfigError

    found: list[str] = []
    try:
        settings = load()
    except ConfigError as error:
        found += error.problems
    else:
        found += problems(settings)
        if not settings.providers and not as_json:
            typer.echo("no provider is set up: misses need a function of the program's own")
    found += unknown_variables()
    if as_json:
        print_json({"problems": found})
    for problem in () if as_json else found:
        typer.echo(f"PROBLEM: {problem}")
    if found:
        raise typer.Exit(NOTHING)
    if not as_json:
        typer.echo("the settings are sound")


COMMANDS = (config,)
