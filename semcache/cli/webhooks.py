"""The command `semcache webhooks serve`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from semcache.cli.common import CachePath, console, location
from semcache.errors import ConfigError


def webhooks(
    what: Annotated[  # noqa: ARG001 - there is only one choice
        Literal["serve"], typer.Argument(help="serve runs the server.")
    ],
    cache: CachePath = None,
    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="The port to listen on.")
    ] = 8787,
) -> None:
    """Receive signed events at POST /webhook/NAME and invalidate the entries they name."""
    from semcache.config.settings import load
    from semcache.integrations.webhooks import webhook_app
    from semcache.options import Matching
    from semcache.semantic_cache import SemanticCache

    settings = load()
    sources = settings.webhooks.sources
    if not sources:
        raise ConfigError(
            "No source of webhooks is set up. Add one to semcache.toml:\n"
            "  [webhooks.sources.github]\n"
            '  scheme = "github"\n'
            "and set SEMCACHE_WEBHOOKS__SOURCES__GITHUB__SECRET."
        )
    try:
        import uvicorn
    except ImportError:
        raise ConfigError(
            'Receiving webhooks needs more packages: pip install "semcache-llm[webhooks]".'
        ) from None
    for name, source in sources.items():
        if source.secret is None:
            console(stderr=True).print(f"{name} has no secret: all its deliveries are refused")
    with SemanticCache(location(cache), matching=Matching(semantic=False)) as cached:
        uvicorn.run(webhook_app(cached, settings.webhooks), host=host, port=port, log_level="info")


COMMANDS = (webhooks,)
