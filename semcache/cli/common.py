"""What the commands share: common options, opening a cache, printing."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from semcache.backends.base import Backend, Maintenance
from semcache.backends.opening import open_backend
from semcache.cli.terminal import console as console
from semcache.cli.terminal import echo, json_text
from semcache.errors import ConfigError, RequestError
from semcache.types import Entry

NOTHING_FOUND = 3
"""Exit code if nothing was found, or if a check found problems."""


def nonempty(text: str) -> str:
    """A location. An empty one, as from an unset variable, must not mean the current directory."""
    if not text:
        raise typer.BadParameter("the path is empty. Write . for the current directory.")
    return text


def nonempty_path(text: str) -> Path:
    """A directory, with the same check."""
    return Path(nonempty(text))


CachePath = Annotated[
    str | None,
    typer.Option(
        "--cache",
        "-c",
        envvar="SEMCACHE_PATH",
        help="The cache: a directory, or the URL of a backend.",
        metavar="PATH",
        parser=nonempty,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="Only this namespace.")]
Model = Annotated[str | None, typer.Option("--model", "-m", help="Only this model.")]
Tag = Annotated[str | None, typer.Option("--tag", "-t", help="Only entries with this tag.")]
Limit = Annotated[int, typer.Option("--limit", "-l", min=1, help="List at most this many.")]
EmbedderName = Annotated[
    str | None,
    typer.Option(
        "--embedder",
        help="The name or path of a sentence-transformers model; by default all-MiniLM-L6-v2.",
    ),
]
Age = Annotated[
    str | None,
    typer.Option(
        "--older-than", help="Only entries stored at least this long ago: 90s, 15m, 6h, 30d."
    ),
]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def location(path: str | None, *, create: bool = False) -> str:
    """The location of the cache: as given, as in the settings, or the default one.

    Args:
        create: use the default location even if it holds no cache yet, and print which it is.

    Raises:
        ConfigError: none was given, and there is no cache at the default location.
    """
    from semcache.config.settings import load

    found = path or load().path
    if found is not None:
        return str(found)
    default = default_location()
    if create:
        said = f"cache: {default} (for another, give --cache or set SEMCACHE_PATH)"
        console(stderr=True).print(said, style="dim", soft_wrap=True, markup=False)
    elif not default.is_dir():
        raise ConfigError(
            "No cache was given. Give --cache PATH, set SEMCACHE_PATH, or write path in "
            "semcache.toml."
        )
    return str(default)


def default_location() -> Path:
    """The default cache of the commands: a directory in the user's own cache directory."""
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "semcache"


@contextmanager
def open_existing(path: str | None) -> Iterator[Backend]:
    """The backend of a cache that must already exist."""
    backend = open_backend(location(path), create=False)
    try:
        yield backend
    finally:
        backend.close()


def maintenance(backend: Backend, doing: str) -> Maintenance:
    """The maintenance of a backend.

    Raises:
        ConfigError: the backend has none, because a server maintains its store.
    """
    if backend.maintenance is None:
        raise ConfigError(f"{backend.name} cannot be {doing} by semcache; its server maintains it.")
    return backend.maintenance


def seconds(age: str | None) -> float | None:
    """An age such as 30d, in seconds.

    Raises:
        RequestError: it is not an age.
    """
    if age is None:
        return None
    try:
        value = float(age[:-1]) * _UNITS[age[-1]]
    except (KeyError, ValueError, IndexError):
        value = math.nan
    if not 0 <= value < math.inf:
        raise RequestError(f"{age!r} is not an age; write 90s, 15m, 6h, 30d or 2w.")
    return value


def print_json(value: Any) -> None:
    echo(json_text(value, indent=2))


def moment(at: float | None) -> str:
    """A time in UTC, such as 2026-01-31 12:00:00."""
    if at is None:
        return "never"
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):  # a damaged entry
        return f"no date ({at:g})"


def ago(at: float | None) -> str:
    """How long ago a time was, in the largest unit that fits, such as 3h."""
    if at is None:
        return "-"
    elapsed = max(time.time() - at, 0.0)
    for unit, length in reversed(_UNITS.items()):
        if elapsed >= length:
            return f"{elapsed / length:.0f}{unit}"
    return "0s"


def short(text: str | None, width: int) -> str:
    """The text on one line, cut to at most `width` characters."""
    line = " ".join((text or "").split())
    return line if len(line) <= width else line[: width - 1] + "…"


def entry_json(entry: Entry) -> dict[str, Any]:
    """An entry as JSON."""
    return {
        "id": entry.id,
        "namespace": entry.namespace,
        "model": entry.model,
        "question": entry.question,
        "answer": entry.completion.text,
        "created_at": entry.created_at,
        "expires_at": entry.expires_at,
        "last_hit_at": entry.last_hit_at,
        "hits": entry.hits,
        "exact_key": entry.exact_key.hex(),
        "scope": entry.scope.hex(),
    }


def size(count: float) -> str:
    """A number of bytes with a unit, such as 1.5 MB."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


@contextmanager
def progress(label: str) -> Iterator[Any]:
    """A progress bar on standard error, to be called with (done, total).

    If standard error is not a terminal, the calls do nothing.
    """
    out = console(stderr=True)
    if not out.is_terminal:
        yield lambda done, total=None: None  # noqa: ARG005 - shows nothing
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    with Progress(
        "{task.description}",
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=out,
        transient=True,
    ) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total=None: bar.update(task, completed=done, total=total)


MISS_REASONS = {
    "empty_scope": "nothing stored in the scope",
    "below_threshold": "nothing similar enough",
    "refused": "a difference that changes the answer",
    "doubtful": "not likely enough to be right",
    "expired": "the stored answer has expired",
    "no_question": "no text to compare",
    "question_too_long": "the question is too long",
    "semantic_off": "only exact hits were asked for",
    "fault": "a fault",
    "bypassed": "put or refreshed",
    "caching_off": "caching was switched off",
    "index_building": "the index was being built",
    "personal_data": "personal data in the request",
}
"""The reasons of misses, in words."""
