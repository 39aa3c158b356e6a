"""The commands, collected in one application.

Building the options of every command takes longer than running most of them, so if the
command line names a command, only that one is built.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

MODULES = {
    "demo": ("demo",),
    "inspect": ("stats", "list", "show", "search", "explain"),
    "maintain": ("delete", "clear", "erase", "check", "warmup", "reembed", "vacuum"),
    "transfer": ("warm", "export", "import", "backup", "restore"),
    "ask": ("ask", "providers"),
    "batch": ("batch",),
    "config": ("config",),
    "webhooks": ("webhooks",),
    "replay": ("replay",),
    "review": ("review", "tune"),
}
"""The modules and the commands that each defines."""


_PANELS = {
    "Get started": ("demo", "ask", "providers", "config"),
    "Inspect": ("stats", "list", "show", "search", "explain"),
    "Improve": ("replay", "review", "tune", "warm"),
    "Maintain": ("delete", "clear", "erase", "check", "warmup", "reembed", "vacuum"),
    "Move": ("export", "import", "backup", "restore"),
    "Run": ("batch", "webhooks"),
}
"""The commands as the help groups them."""


def _panel(name: str) -> str:
    return next(panel for panel, names in _PANELS.items() if name in names)


def _version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        typer.echo(f"semcache {version('semcache-llm')}")
        raise typer.Exit


def about(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Inspect and maintain a semantic cache for calls to language models."""


def application(arguments: Sequence[str] = ()) -> typer.Typer:
    """The application with the one command that `arguments` begin with, or with all commands."""
    app = typer.Typer(
        name="semcache",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(about)
    first = set(arguments[:1])
    for module, names in MODULES.items():
        wanted = first & set(names) if first and first <= _all_names() else set(names)
        if wanted:
            _add(app, module, wanted)
    order = [name for names in _PANELS.values() for name in names]
    app.registered_commands.sort(key=lambda command: order.index(command.name or ""))
    return app


def _all_names() -> set[str]:
    return {name for names in MODULES.values() for name in names}


def _add(app: typer.Typer, module: str, wanted: set[str]) -> None:
    for command in import_module(f"semcache.cli.{module}").COMMANDS:
        name = command.__name__.rstrip("_")
        if name in wanted:
            app.command(name=name, cls=_Command, rich_help_panel=_panel(name))(command)


_UsageError: Any = typer.BadParameter.__base__
"""Click's class, which typer either bundles or depends on."""


class _Command(TyperCommand):
    """A command whose error about an extra argument suggests what may have been meant."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except _UsageError as error:
            extra = re.search(r"unexpected extra argument\S* \((.*)\)$", error.message)
            if extra is None:
                raise
            first = extra[1].split()[0]
            if Path(first).exists() or "/" in first:
                advice = f"Did you mean --cache {first}?"
            else:
                advice = "If the text has several words, put it in quotes."
            raise _UsageError(f"{error.message} {advice}", ctx=error.ctx) from None
