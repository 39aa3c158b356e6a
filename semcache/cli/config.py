"""The commands `semcache config show` and `semcache config check`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from semcache.cli.common import NOTHING_FOUND, AsJson, console, print_json


def config(
    what: Annotated[
        Literal["show", "check"],
        typer.Argument(help="show prints the settings; check looks for problems in them."),
    ],
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
    from semcache.config.settings import load, origins

    empty: tuple[object, ...] = (None, (), {})
    settings = [o for o in origins(load()) if everything or o.value not in empty]
    if as_json:
        print_json({o.name: {"value": o.value, "source": o.source} for o in settings})
        return
    from rich.table import Table

    table = Table("setting", "value", "from")
    for origin in settings:
        style = "dim" if origin.source == "default" else None
        table.add_row(origin.name, str(origin.value), origin.source, style=style)
    console().print(table)


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
        problems += router_problems(settings)
        if not settings.providers and not as_json:
            typer.echo("no provider is set up: on a miss, your program must make the call itself")
    problems += unknown_variables()
    if as_json:
        print_json({"problems": problems})
    for problem in () if as_json else problems:
        typer.echo(f"PROBLEM: {problem}")
    if problems:
        raise typer.Exit(NOTHING_FOUND)
    if not as_json:
        typer.echo("the settings are valid")


COMMANDS = (config,)
