"""The commands in one application.

Reading every command's options takes longer than most commands; where the command
line names one, only that one is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Annotated

import typer

MODULES = {
    "demo": ("demo",),
    "inspect": ("stats", "list", "show", "search", "explain"),
    "maintain": ("delete", "clear", "check", "warmup", "reembed", "vacuum"),
    "transfer": ("export", "import", "backup", "restore"),
    "ask": ("ask", "providers"),
    "batch": ("batch",),
    "config": ("config",),
    "webhooks": ("webhooks",),
    "replay": ("replay",),
    "review": ("review", "tune"),
}
"""Which module holds which commands."""


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"semcache {version('semcache-llm')}")
        raise typer.Exit


def about(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Look into a semantic cache for calls to language models, and look after it."""


def application(arguments: Sequence[str] = ()) -> typer.Typer:
    """The application with the command that the arguments begin with, or else with all."""
    app = typer.Typer(
        name="semcache",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(about)
    named = {arguments[0]} if arguments else set()
    for module, names in MODULES.items():
        wanted = named & set(names) if named <= _all_names() and named else set(names)
        if wanted:
            _add(app, module, wanted)
    return app


def _all_names() -> set[str]:
    return {name for names in MODULES.values() for name in names}


def _add(app: typer.Typer, module: str, wanted: set[str]) -> None:
    for command in import_module(f"semcache.cli.{module}").COMMANDS:
        name = command.__name__.rstrip("_")
        if name in wanted:
            app.command(name=name)(command)
