"""What the site takes from elsewhere: commands, settings, docstrings, files outside docs/.

A page says `<!-- commands -->`, `<!-- settings -->` or `<!-- from FILE -->` where the text belongs.
It is filled in when the site is built, so that it cannot differ from its source.
"""

from __future__ import annotations

import inspect
import os
import re
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Literal

from pydantic import BaseModel, SecretStr
from pydantic_core import PydanticUndefined
from typer.models import ArgumentInfo, OptionInfo

from semcache.cli.app import MODULES, application
from semcache.config.settings import Settings

# ------------------------------------------------------------------------------ commands


def commands() -> str:
    """Every command with its arguments and options, as Markdown."""
    registered = {command.name: command.callback for command in application().registered_commands}
    names = [name for names in MODULES.values() for name in names]
    return "\n".join(f"## {name}\n\n{_command(name, registered[name])}" for name in names)


def _command(name: str, callback: Any) -> str:
    arguments: list[Any] = []
    options: list[Any] = []
    for parameter in inspect.signature(callback, eval_str=True).parameters.values():
        annotation, *extra = typing.get_args(parameter.annotation)
        info = next(i for i in extra if isinstance(i, OptionInfo | ArgumentInfo))
        (arguments if isinstance(info, ArgumentInfo) else options).append(
            (parameter, annotation, info)
        )
    usage = " ".join([f"semcache {name}", *(_argument(*one) for one in arguments)])
    rows = [(f"`{_argument(*one)}`", _text(one[2].help), _default(one[0])) for one in arguments]
    rows += [(_flags(*one), _text(one[2].help), _default(one[0])) for one in options]
    head = ("argument or option", "what it is", "default")
    text = f"```text\n{usage}{' [OPTIONS]' if options else ''}\n```\n\n"
    return f"{text}{_paragraphs(callback.__doc__)}\n\n{_table(head, rows)}"


def _argument(parameter: inspect.Parameter, annotation: Any, info: ArgumentInfo) -> str:
    choices = typing.get_args(annotation) if typing.get_origin(annotation) is Literal else ()
    shown = info.metavar or "|".join(choices) or parameter.name.upper()
    return shown if parameter.default is parameter.empty else f"[{shown}]"


def _flags(parameter: inspect.Parameter, annotation: Any, info: OptionInfo) -> str:
    flags = tuple(info.param_decls or ())
    if str(info.default).startswith("-"):  # in Annotated, the first flag is the first argument
        flags = (str(info.default), *flags)
    flags = flags or (f"--{parameter.name.replace('_', '-')}",)
    if bool in (annotation, *typing.get_args(annotation)):
        return ", ".join(f"`{flag}`" for flag in flags)
    kinds = [arg for arg in (annotation, *typing.get_args(annotation)) if arg in _METAVARS]
    value = info.metavar or (_METAVARS[kinds[-1]] if kinds else "VALUE")
    if typing.get_origin(annotation) is Literal:
        value = "|".join(typing.get_args(annotation))
    return ", ".join(f"`{flag} {value}`" for flag in flags)


_METAVARS = {str: "TEXT", int: "NUMBER", float: "NUMBER", Path: "PATH", list[float]: "NUMBER",
             list[str]: "TEXT"}  # fmt: skip


def _default(parameter: inspect.Parameter) -> str:
    if parameter.default in (parameter.empty, None, False):
        return ""
    return f"`{parameter.default}`"


# ------------------------------------------------------------------------------ settings


def settings() -> str:
    """Every setting with its description, as Markdown."""
    own = [row for name, row in _rows(Settings) if name not in _SECTIONS]
    parts = ["## Settings of the cache and of calls", _table(_HEAD, own)]
    for name, (title, intro, model, prefix) in _SECTIONS.items():
        about = Settings.model_fields[name].description
        rows = [row for _, row in _rows(model, prefix)]
        parts += [f"## {title}", f"{about} {intro}", _table(_HEAD, rows)]
    return "\n\n".join(parts) + "\n"


_HEAD = ("setting", "what it is", "type", "default")


def _sections() -> dict[str, tuple[str, str, type[BaseModel], str]]:
    from semcache.config import sections as module

    return {
        "providers": (
            "Providers",
            "`NAME` is what routes and messages call the provider.",
            module.ProviderSettings,
            "providers.NAME.",
        ),
        "routes": (
            "Routes",
            "In `semcache.toml`, each is a `[[routes]]` table.",
            module.RouteSettings,
            "routes.",
        ),
        "retry": ("Retries", "", module.RetrySettings, "retry."),
        "breaker": ("Circuit breakers", "", module.BreakerSettings, "breaker."),
        "webhooks": ("Webhooks", "", module.WebhookSettings, "webhooks."),
        "webhook_sources": ("", "", module.WebhookSource, "webhooks.sources.NAME."),
    }


_ALL = _sections()
_SECTIONS = {name: section for name, section in _ALL.items() if name in Settings.model_fields}


def _rows(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, tuple[str, ...]]]:
    described = attributes(model)
    for name, field in model.model_fields.items():
        said = field.description or described.get(name)
        if said is None:
            raise LookupError(f"The setting {prefix}{name} has no description.")
        default = "" if field.default is PydanticUndefined else field.default
        shown = (
            "" if default in ("", None, ()) or isinstance(default, BaseModel) else f"`{default}`"
        )
        yield name, (f"`{prefix}{name}`", _sentence(said), _type(field.annotation), shown)
        if name == "sources":
            yield from _rows(_ALL["webhook_sources"][2], _ALL["webhook_sources"][3])


def attributes(documented: type) -> dict[str, str]:
    """What a docstring says under "Attributes:", by name; "a, b: text" counts for both."""
    text = (documented.__doc__ or "").partition("Attributes:")[2].partition("Raises:")[0]
    found = {}
    for part in re.split(r"\n {8}(?=\w[\w, ]*: )", text):
        names, colon, said = part.strip().partition(": ")
        if colon:
            found.update(dict.fromkeys(names.split(", "), " ".join(said.split())))
    return found


def _type(annotation: Any) -> str:
    """A type as people who write TOML call it."""
    args = typing.get_args(annotation)
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, UnionType):
        return " or ".join(_type(arg) for arg in args if arg is not type(None))
    if origin is Literal:
        return " or ".join(f'`"{arg}"`' for arg in args)
    if origin is tuple:
        return "list"
    if origin is dict:
        return "table"
    names = {str: "text", SecretStr: "text (secret)", int: "whole number", float: "number"}
    return names.get(annotation, {bool: "true or false"}.get(annotation, "table"))


# --------------------------------------------------------------------------------- text


def _text(said: str | None) -> str:
    return " ".join((said or "").split())


def _sentence(said: str) -> str:
    text = _text(said).rstrip(".")
    return f"{text[0].upper()}{text[1:]}."


def _paragraphs(said: str | None) -> str:
    return "\n\n".join(" ".join(part.split()) for part in (said or "").split("\n\n"))


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    cells = [[cell.replace("|", r"\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells) + "\n"


# ---------------------------------------------------------------------------- docstrings

_SECTION = re.compile(r"(Args|Attributes|Raises):$")
_ENTRY = re.compile(r"    (\S[^:]*): (.*)")
_TITLES = {"Args": "Parameters", "Attributes": "Attributes", "Raises": "Raises"}
_STAR = re.compile(r"\*(?=\S)|(?<=\S)\*")
_CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)(\w?)")


def converted(lines: list[str]) -> list[str]:
    """A docstring as reStructuredText: its sections as lists, its backticks as code."""
    made: list[str] = []
    section = ""
    for line in _CODE.sub(_literal, _STAR.sub(r"\\*", "\n".join(lines))).split("\n"):
        if found := _SECTION.match(line):
            section = found[1]
            made += ["", f":{_TITLES[section]}:"]
        elif section and (entry := _ENTRY.match(line)):
            names = [_name(name, section) for name in entry[1].split(", ")]
            made += ["", f"   * {', '.join(names)} -- {entry[2]}"]
        elif section and line.startswith("     "):
            made.append(f"     {line.strip()}")
        else:
            if line.strip():
                section = ""
            made.append(line)
    return made


def _literal(found: re.Match[str]) -> str:
    code = found[1].replace(r"\*", "*")
    return f"``{code}``" + (rf"\ {found[2]}" if found[2] else "")


def _name(name: str, section: str) -> str:
    import semcache.errors

    if section == "Raises" and hasattr(semcache.errors, name):
        return f":py:exc:`~semcache.{name}`"
    return f"**{name}**"


def _convert(*event: Any) -> None:
    lines: list[str] = event[-1]
    lines[:] = converted(lines)


def _sign(*event: Any) -> tuple[str, str | None] | None:
    """Defaults that are no Python, such as `<factory>`, would keep a signature from being read."""
    arguments, returns = event[-2:]
    if arguments is None:
        return None
    return re.sub(r"<[^<>]*(<[^<>]*>)?[^<>]*>", "...", arguments), returns


# --------------------------------------------------------------------------------- pages

ROOT = Path(__file__).parents[2]
PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "examples/README.md": "examples.md",
    "benchmarks/results/README.md": "benchmarks.md",
}
"""Files outside docs/ that are pages of the site, and the page that is made of each."""
_LINK = re.compile(r"(\]\()([^)#:\s]+)((?:#[^)]*)?\))")


def _fill(app: Any, name: str, source: list[str]) -> None:
    """Fill in what a page takes from elsewhere, and lead its links to pages of the site."""
    docs = ROOT / "docs"
    page = folder = docs / f"{name}.md"
    text = source[0]
    for marker, make in (("<!-- commands -->", commands), ("<!-- settings -->", settings)):
        if marker in text and name.startswith("reference/"):
            text = text.replace(marker, make())
    for file in PAGES:
        marker = f"<!-- from {file} -->"
        if marker in text:
            folder = ROOT / file
            app.env.note_dependency(str(folder), docname=name)
            text = text.replace(marker, folder.read_text())

    def led(link: re.Match[str]) -> str:
        target = (folder.parent / link[2]).resolve()
        inside = PAGES.get(str(target.relative_to(ROOT)) if target.is_relative_to(ROOT) else "")
        target = docs / inside if inside else target
        return f"{link[1]}{os.path.relpath(target, page.parent)}{link[3]}"

    source[0] = _LINK.sub(led, text)


# ----------------------------------------------------------------------------- type names


def _resolve(app: Any, env: Any, node: Any, content: Any) -> Any:
    """Annotations name types as the code does: lead them to the documented one of that name."""
    if node.get("refdomain") != "py":
        return None
    name = node["reftarget"].rpartition(".")[2]
    if name == "Progress" and str(node.get("py:module")).startswith("semcache.backends"):
        return content  # an alias there, and not the class of `semcache.batch`
    targets = {
        (entry.docname, entry.node_id)
        for full, entry in env.get_domain("py").objects.items()
        if full.rpartition(".")[2] == name and entry.objtype in ("class", "exception", "data")
    }
    if len(targets) != 1:
        return None
    from sphinx.util.nodes import make_refnode

    docname, node_id = targets.pop()
    return make_refnode(app.builder, node["refdoc"], docname, node_id, [content], name)


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", _fill)
    app.connect("autodoc-process-docstring", _convert)
    app.connect("autodoc-process-signature", _sign)
    app.connect("missing-reference", _resolve)
    return {"parallel_read_safe": True}
