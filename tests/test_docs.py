"""The documents say what is so."""

from __future__ import annotations

import json
import os
import re
import shlex
import tomllib
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmarks import (
    durability,
    judge,
    large,
    poisoning,
    processes,
    report,
    routing,
    side_channel,
    soak,
    verifying,
)
from benchmarks.latency import table
from semcache import Calls, SemanticCache
from semcache.config import Settings, load
from semcache.options import DIRECT, GROUPS
from semcache.router import Router
from tests.test_architecture import ALLOWED
from tests.test_imports import NAMES

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
RESULTS = ROOT / "benchmarks" / "results"
SITE = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
PAGES = [
    *sorted(ROOT.glob("*.md")),
    ROOT / "examples" / "README.md",
    RESULTS / "README.md",
    *SITE,
]
NOT_RUN = "# Not run by the tests:"
"""A block of Python that begins with this says after it why it is not run."""

_FENCE = re.compile(r"^```([a-z]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def read(page: str) -> str:
    return (ROOT / page).read_text()


def blocks(path: Path) -> list[tuple[str, str]]:
    """(language, text) of the fenced blocks of a page."""
    return [(found[1], found[2]) for found in _FENCE.finditer(path.read_text())]


def by_name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def section(name: str, page: str) -> str:
    """The text between a pair of markers."""
    found = re.search(rf"<!-- {name} -->\n(.*?)<!-- end -->", read(page), re.DOTALL)
    assert found, f"{page} has no section {name}"
    return found.group(1)


# ------------------------------------------------------------------------------ examples


@pytest.mark.parametrize(
    "path", [p for p in PAGES if any(kind == "python" for kind, _ in blocks(p))], ids=by_name
)
def test_the_examples_run(
    path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """All Python of a page, from top to bottom, as one program in an empty directory.

    A block of text right after it is what it prints.
    """
    monkeypatch.chdir(tmp_path)
    # Of what is good enough a share is explored: not this time.
    calls = Calls(draw=lambda: 0.5)
    monkeypatch.setitem(SemanticCache.__init__.__kwdefaults__, "calls", calls)
    names: dict[str, Any] = {"__name__": path.stem}
    page = blocks(path)
    try:
        for number, ((kind, code), after) in enumerate(pairwise([*page, ("", "")])):
            if kind != "python" or code.startswith(NOT_RUN):
                continue
            exec(compile(code, f"{path.name}, block {number}", "exec", dont_inherit=True), names)
            out = capsys.readouterr().out
            if after[0] == "text":
                assert after[1].strip() in out
    finally:
        for value in names.values():
            if isinstance(value, SemanticCache | Router):
                value.close()


def test_the_readme_shows_an_exact_and_a_semantic_hit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What its comments say is so."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(SemanticCache.__init__.__kwdefaults__, "calls", Calls(draw=lambda: 0.5))
    names: dict[str, Any] = {"__name__": "readme"}
    for kind, code in blocks(ROOT / "README.md"):
        if kind == "python":
            exec(compile(code, "README", "exec"), names)
    out = capsys.readouterr().out
    assert "CacheInfo(exact_hits=1, semantic_hits=1, misses=1, faults=0, not_stored={})" in out
    assert "Nine to five." in out


@pytest.mark.parametrize("path", SITE, ids=by_name)
def test_settings_in_the_documents_are_settings(path: Path) -> None:
    """Every block of TOML can be a `semcache.toml`."""
    for kind, text in blocks(path):
        if kind == "toml":
            load(**tomllib.loads(text))


@pytest.mark.parametrize("path", SITE, ids=by_name)
def test_commands_in_the_documents_exist(path: Path) -> None:
    """With the options that they are given."""
    for kind, text in blocks(path):
        for line in text.splitlines() if kind == "sh" else ():
            if line.startswith("semcache "):
                _, name, *rest = shlex.split(line)
                flags = {word for word in rest if word.startswith("--")}
                assert flags <= OPTIONS[name], line


# ----------------------------------------------------------------------------- reference


def reference() -> Any:
    """What makes the reference pages."""
    path = DOCS / "_ext" / "semcache_reference.py"
    spec = spec_from_file_location("semcache_reference", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REFERENCE = reference()
OPTIONS = {
    name: set(re.findall(r"`(--[a-z-]+)", text))
    for name, text in re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", REFERENCE.commands(), re.M | re.S)
}


def test_every_command_is_documented() -> None:
    """Each command of the command line, and no other, with the options that its help shows."""
    from semcache.cli.app import MODULES, application

    there = {command.name for command in application().registered_commands}
    assert there == {name for names in MODULES.values() for name in names}
    assert [c.name for c in application(["stats"]).registered_commands] == ["stats"]
    assert len(application(["no-such"]).registered_commands) == len(there)
    assert there == OPTIONS.keys()
    runner = CliRunner()
    for name, options in OPTIONS.items():
        shown = runner.invoke(application([name]), [name, "--help"], env=WIDE)
        assert shown.exit_code == 0
        assert set(re.findall(r"[│ ](--[a-z][a-z-]+)", shown.output)) == {*options, "--help"}


WIDE = {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}


def test_every_setting_is_documented() -> None:
    """With a description; sections setting by setting."""
    page = REFERENCE.settings()
    named = set(re.findall(r"^\| `([\w.]+)` \|", page, re.M))
    for name, field in Settings.model_fields.items():
        assert name in named or any(one.startswith(f"{name}.") for one in named)
        assert field.description
    assert {"providers.NAME.api_key", "webhooks.sources.NAME.secret", "retry.budget"} <= named


def test_every_public_name_is_in_the_reference() -> None:
    """Each once, wherever else it can be imported from; and nothing is there that is not."""
    pages = "".join(path.read_text() for path in sorted((DOCS / "reference").glob("*.md")))
    listed = re.findall(
        r"^\.\. (?:auto(?:class|function|exception)|py:class|py:data):: ([\w.]+)", pages, re.M
    )
    assert len(listed) == len(set(listed))

    def value(full: str) -> Any:
        module, _, name = full.rpartition(".")
        return getattr(import_module(module), name, full)

    shown = {id(value(full)) for full in listed}
    for module, name in NAMES:
        if name not in ("Vector", "__version__"):
            assert id(value(f"{module}.{name}")) in shown, f"{module}.{name} is on no page"
    assert "semcache.types.Vector" in listed


NEW = ("share_with_group", "detect", "handling", "user", "public", "hit_delay")
"""Options that 0.1.0 did not have."""


def test_moved_options_are_listed() -> None:
    """The changelog leads from every keyword of 0.1.0 to the group that has it now."""
    rows = re.findall(r"^ *\| (.*?) \| `(\w+)=\w+\(\.\.\.\)` \|", read("CHANGELOG.md"), re.M)
    moved = {name: group for names, group in rows for name in re.findall(r"`(\w+)`", names)}
    for group, kind in GROUPS.items():
        for name in kind.__dataclass_fields__:
            assert name in (*DIRECT, *NEW) or moved[name] == group


def test_the_architecture_page_is_that_of_the_imports() -> None:
    """Every package is described, and imports point down the list."""
    page = read("docs/explanation/architecture.md")
    layers = re.search(r"point down this list:\n\n```text\n(.*?)```", page, re.DOTALL)
    assert layers
    level = {
        room: number
        for number, line in enumerate(layers[1].splitlines())
        for room in line.split(", ")
    }
    rooms = {room for room in ALLOWED if "__" not in room and room != "config.flags"}
    assert {room for room in rooms if "." not in room} <= level.keys()
    for room in rooms & level.keys():
        for called in (ALLOWED[room] - {room}) & level.keys():
            assert level[called] > level[room], f"{room} imports {called}"
    rows = "".join(re.findall(r"^\| (`.*?) \|", page, re.MULTILINE))
    assert {room for room in rooms if "." not in room} == set(re.findall(r"`(\w+)`", rows))


# ------------------------------------------------------------------------------- figures


def test_the_figures_are_those_of_the_results() -> None:
    """The table of figures is made from the committed results, word for word."""
    results = json.loads((RESULTS / "latency.json").read_text())
    assert section("figures", "docs/results.md").strip() == table(results).strip()
    assert (RESULTS / "latency.png").exists()


def test_the_router_s_figures_are_those_of_the_results() -> None:
    """The same for the router and its batches."""
    found = [json.loads((RESULTS / f"{name}.json").read_text()) for name in ("routing", "batch")]
    assert section("routing", "docs/results.md").strip() == routing.table(*found).strip()


def test_the_overview_is_that_of_the_results() -> None:
    """Hit rates and false hits, from the committed replay."""
    results = json.loads((RESULTS / "hit_rate.json").read_text())
    assert (
        section("hits", "docs/explanation/thresholds.md").strip()
        == report.overview(results).strip()
    )


def test_the_bound_s_figures_are_those_of_the_results() -> None:
    """On the page of results and on the bound's own page, word for word."""
    results = ROOT / "benchmarks" / "results"
    found = json.loads((results / "bound.json").read_text())
    cost = json.loads((results / "verifying.json").read_text())
    page = "docs/explanation/bound.md"
    assert section("bound", "docs/results.md").strip() == report.bound_in_short(found).strip()
    assert section("bound", page).strip() == report.bound(found).strip()
    assert section("cost", page).strip() == verifying.table(cost).strip()
    judged = json.loads((RESULTS / "judge.json").read_text())["kinds"]
    rows = section("judge", page).strip().splitlines()[2:]
    assert rows == [judge.row(kind, result) for kind, result in judged.items()]


def test_the_losses_are_those_of_the_results() -> None:
    """Each figure with a comma or a point that the text names is in a table made from results."""
    text = read("docs/results.md").partition("## Where semcache loses")[2].partition("\n## ")[0]
    tables = "\n".join(
        line
        for page in ("benchmarks/results/README.md", "docs/explanation/bound.md")
        for line in read(page).splitlines()
        if line.startswith("|")
    )
    known = {figure.rstrip(",") for figure in re.findall(r"\d[\d,]*(?:\.\d+)?%?", tables)}
    named = set(re.findall(r"\d[\d,]*(?:\.\d+)?%?", re.sub(r"`[^`]*`", "", text)))
    exact = {figure.rstrip(",") for figure in named if re.search(r"\d[.,]\d", figure)}
    assert exact
    assert exact - {"0.1"} <= known  # 0.1.0 is a version


@pytest.mark.parametrize(
    ("name", "results", "table"),
    [
        ("processes", "processes", processes.table),
        ("durability", "durability", durability.table),
        ("large", "latency_large", large.table),
        ("soak", "soak", soak.table),
    ],
)
def test_the_figures_of_durability_are_those_of_the_results(
    name: str, results: str, table: Any
) -> None:
    """Word for word; nothing that was killed has lost anything."""
    found = json.loads((RESULTS / f"{results}.json").read_text())
    assert section(name, "docs/durability.md").strip() == table(found).strip()


@pytest.mark.parametrize(
    ("name", "table"), [("poisoning", poisoning.table), ("side_channel", side_channel.table)]
)
def test_the_figures_of_attacks_are_those_of_the_results(name: str, table: Any) -> None:
    """Word for word."""
    found = json.loads((RESULTS / f"{name}.json").read_text())
    assert section(name, "SECURITY.md").strip() == table(found).strip()


def test_every_fault_of_the_table_is_a_test() -> None:
    """And every test of faults is in the table."""
    page = (ROOT / "docs" / "durability.md").read_text()
    rows = set(re.findall(r"^\| `(test_\w+)` \|", page, re.MULTILINE))
    source = (ROOT / "tests" / "test_faults.py").read_text()
    assert rows == set(re.findall(r"^def (test_\w+)\(", source, re.MULTILINE))


def test_the_page_of_results_is_generated() -> None:
    """Word for word from the results beside it."""
    page = ROOT / "benchmarks" / "results" / "README.md"
    assert page.read_text() == report.page()


def test_results_say_where_they_come_from() -> None:
    """Commit, machine and command stand in every results file."""
    for path in RESULTS.glob("*.json"):
        found = json.loads(path.read_text())["environment"]
        assert re.fullmatch(r"[0-9a-f]{12}", found["commit"]), f"{path} is of no commit"
        assert found["machine"]
        assert found["command"].startswith("python -m benchmarks.")


@pytest.mark.parametrize("name", ["demo", "tests"])
def test_the_two_commands_are_single_lines(name: str) -> None:
    """One line each, in a new virtual environment, with the tested versions."""
    (line,) = [
        row for row in section(name, "README.md").splitlines() if row and not row.startswith("```")
    ]
    assert line.startswith("python3 -m venv .venv && ")
    assert "-c constraints.txt" in line


@pytest.mark.parametrize("path", PAGES, ids=by_name)
def test_links_lead_somewhere(path: Path) -> None:
    """Every relative link is a file; the build of the site checks headings within pages."""
    for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", path.read_text()):
        assert (path.parent / target).exists(), target


def test_constraints_cover_what_is_required() -> None:
    """Every package that pyproject.toml names has a tested version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    names = {re.split(r"[<>=\[]", item)[0].lower().replace("_", "-") for item in wanted}
    pinned = (ROOT / "constraints.txt").read_text()
    have = {name.lower().replace("_", "-") for name in re.findall(r"^([\w.-]+)==", pinned, re.M)}
    assert names <= have
    assert "torch" in have


def test_nothing_speaks_of_this_machine() -> None:
    """No path of a developer's machine is in what is committed."""
    here = os.path.sep + "work" + os.path.sep
    for path in [*PAGES, *RESULTS.glob("*.[jm]*")]:
        assert here not in path.read_text(), f"{path} names {here}"
