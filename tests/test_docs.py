"""The documents say what is so."""

from __future__ import annotations

import json
import os
import re
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from benchmarks import durability, large, processes, report, routing, soak, verifying
from benchmarks.latency import table
from semcache import SemanticCache
from semcache.embedders.default import DefaultEmbedder

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def section(name: str, page: str = README) -> str:
    """The text between a pair of markers."""
    found = re.search(rf"<!-- {name} -->\n(.*?)<!-- end -->", page, re.DOTALL)
    assert found, f"the page has no section {name}"
    return found.group(1)


def test_the_examples_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    embedder: DefaultEmbedder,
) -> None:
    """All Python in the README, from top to bottom, as one program in an empty directory."""
    monkeypatch.chdir(tmp_path)
    # Of what is good enough a share is explored: not this time.
    monkeypatch.setitem(SemanticCache.__init__.__kwdefaults__, "draw", lambda: 0.5)
    names: dict[str, Any] = {"__name__": "readme"}
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", README, re.DOTALL)):
        exec(compile(code, f"README example {number}", "exec"), names)
    out = capsys.readouterr().out
    assert "CacheInfo(exact_hits=1, semantic_hits=1, misses=1)" in out
    assert "Nine to five." in out
    assert out.count("['A', ' stream', '.']") == 2
    assert "right with a chance of" in out
    assert "answered: What are your hours? · mine None 1\nexact\n" in out
    names["cache"].close()
    names["router"].close()


def test_every_command_is_documented() -> None:
    """Each command of the command line, and no other, is in the README's table."""
    from semcache.cli.app import MODULES, application

    there = {command.name for command in application().registered_commands}
    assert there == {name for names in MODULES.values() for name in names}
    assert [c.name for c in application(["stats"]).registered_commands] == ["stats"]
    assert len(application(["no-such"]).registered_commands) == len(there)
    rows = re.findall(r"^\| (`semcache .*?) \|", README, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`semcache (\w+)", row)}
    assert named == there


def test_the_figures_are_those_of_the_results() -> None:
    """The table of figures is made from the committed results, word for word."""
    results = json.loads((ROOT / "benchmarks" / "results" / "latency.json").read_text())
    assert section("figures").strip() == table(results).strip()
    assert (ROOT / "benchmarks" / "results" / "latency.png").exists()


def test_the_router_s_figures_are_those_of_the_results() -> None:
    """The same for the router and its batches."""
    found = [
        json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
        for name in ("routing", "batch")
    ]
    assert section("routing").strip() == routing.table(*found).strip()


def test_the_overview_is_that_of_the_results() -> None:
    """Hit rates and false hits, from the committed replay."""
    results = json.loads((ROOT / "benchmarks" / "results" / "hit_rate.json").read_text())
    assert section("hits").strip() == report.overview(results).strip()


def test_the_bound_s_figures_are_those_of_the_results() -> None:
    """On the README and on the bound's own page, word for word."""
    results = ROOT / "benchmarks" / "results"
    found = json.loads((results / "bound.json").read_text())
    cost = json.loads((results / "verifying.json").read_text())
    page = (ROOT / "docs" / "verified.md").read_text()
    assert section("bound").strip() == report.bound_in_short(found).strip()
    assert section("bound", page).strip() == report.bound(found).strip()
    assert section("cost", page).strip() == verifying.table(cost).strip()


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
    found = json.loads((ROOT / "benchmarks" / "results" / f"{results}.json").read_text())
    page = (ROOT / "docs" / "durability.md").read_text()
    assert section(name, page).strip() == table(found).strip()


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
    for path in (ROOT / "benchmarks" / "results").glob("*.json"):
        found = json.loads(path.read_text())["environment"]
        assert re.fullmatch(r"[0-9a-f]{12}", found["commit"]), f"{path} is of no commit"
        assert found["machine"]
        assert found["command"].startswith("python -m benchmarks.")


@pytest.mark.parametrize("name", ["demo", "tests"])
def test_the_two_commands_are_single_lines(name: str) -> None:
    """One line each, in a new virtual environment, with the tested versions."""
    (line,) = [row for row in section(name).splitlines() if row and not row.startswith("```")]
    assert line.startswith("python3 -m venv .venv && ")
    assert "-c constraints.txt" in line


def test_links_lead_somewhere() -> None:
    """Every relative link of the documents is a file."""
    pages = (ROOT / "README.md", ROOT / "benchmarks" / "results" / "README.md")
    for path in (*pages, *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_constraints_cover_what_is_required() -> None:
    """Every package that pyproject.toml names has a tested version."""
    import tomllib

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
    for path in [*ROOT.glob("*.md"), *(ROOT / "benchmarks" / "results").glob("*.[jm]*")]:
        assert here not in path.read_text(), f"{path} names {here}"
