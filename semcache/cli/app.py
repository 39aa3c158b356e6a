"""All commands in one application."""

from __future__ import annotations

from typing import Annotated

import typer

from semcache.cli import changing, demo, looking, moving

app = typer.Typer(
    name="semcache",
    help="Look into a semantic cache for calls to language models, and look after it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"semcache {version('semcache-llm')}")
        raise typer.Exit


@app.callback()
def about(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Look into a semantic cache for calls to language models, and look after it."""


for module in (demo, looking, changing, moving):
    for command in module.COMMANDS:
        app.command(name=command.__name__.rstrip("_").replace("_", "-"))(command)
