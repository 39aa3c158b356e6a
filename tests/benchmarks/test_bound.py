"""The benchmarks of the bound and of the verifier, on little."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from benchmarks import bound, plots, report, verifying
from benchmarks.streams import SUPPORT
from benchmarks.verifier import rules
from semcache.verification import guards


@pytest.fixture(scope="module")
def little(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The beginning of our own stream."""
    path = tmp_path_factory.mktemp("little") / "little.jsonl"
    path.write_text("".join(SUPPORT.read_text().splitlines(keepends=True)[:60]))
    return path


def test_every_way_of_a_stream_is_replayed_and_compared(little: Path, tmp_path: Path) -> None:
    """Figures, the table, the page and the plots."""
    name, found = bound.one_stream(little, little.parent, ())
    assert [row["rate"] for row in found["table"]] == list(bound.RATES)
    for place, row in enumerate(found["table"]):
        ways = ("cold", "reversed", "measured judge")
        assert row["kept"] == {way: bound.kept(found[way][place], row["rate"]) for way in ways}
    for way in ("cold", "reversed", "measured judge"):
        assert [one["prompts"] for one in found[way]] == [60, 60, 60]
    streams = {name: found}
    assert "little" in bound.table(streams)
    assert report.bound({"streams": streams}).count("| little |") == 3
    assert report.bound_in_short({"streams": streams}).count("| little |") == 1
    plots.frontiers(streams, tmp_path / "frontiers")
    assert (tmp_path / "frontiers.png").stat().st_size > 10_000


def said(hits: int, wrong: int, half: tuple[int, int]) -> dict[str, Any]:
    second = {"semantic_hits": half[0], "false_hits": half[1]}
    return {"semantic_hits": hits, "false_hits": wrong, "halves": [{}, second]}


@pytest.mark.parametrize(
    ("outcome", "is_kept"),
    [
        (said(0, 0, (0, 0)), True),
        (said(1000, 20, (500, 10)), True),
        (said(1000, 28, (500, 14)), True),
        (said(1000, 40, (500, 20)), False),
        (said(1000, 20, (200, 12)), False),
    ],
)
def test_kept_means_not_above_beyond_chance(outcome: dict[str, Any], is_kept: bool) -> None:
    """Over the whole and over the second half."""
    assert bound.kept(outcome, 0.02) is is_kept


def test_what_looking_costs_is_told_by_path(little: Path) -> None:
    """Every lookup is on one path, and the table names all that occurred."""
    found = verifying.measure(little, 60, 0.05)
    assert sum(path["share"] for path in found["paths"].values()) == pytest.approx(1, abs=0.01)
    assert "beside the embedding alone" in verifying.table(found)


TEXTS = [
    "How do I fly from Boston to Denver with 2 bags in July?",
    "What is the best Python library for reading PDF files?",
    "Can I cancel my order after it has shipped?",
    "who is taller, Alice or Bob",
]


@pytest.mark.parametrize("text", TEXTS)
def test_made_pairs_are_what_they_are_called(text: str) -> None:
    """A change makes another text each time; most keep or break what the guards see."""
    rng = random.Random(3)
    for _ in range(50):
        other = rules.opposite(text, rng)
        assert other is not None
        assert other.casefold() != text.casefold()
        assert rules.same(text, rng).strip()
    assert rules.same(text, random.Random(1)) == rules.same(text, random.Random(1))
    changed = rules.change_number(TEXTS[0], rng)
    assert changed is not None
    assert any(f.kind == "number" and f.decisive for f in guards.compare(TEXTS[0], changed))
