"""Loaders of public sets, on small files in their schema."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.sets import quora, vcache, write
from benchmarks.streams import read

HEAD = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate"


def test_quora(tmp_path: Path) -> None:
    """Duplicates share an answer, through others too; groups that contradict themselves are out."""
    path = tmp_path / "qqp.tsv"
    path.write_text(
        "\n".join(
            (
                HEAD,
                "0\t1\t2\tHow old is the moon?\tWhat is the moon's age?\t1",
                "1\t2\t3\tWhat is the moon's age?\tAge of the moon?\t1",
                "2\t1\t4\tHow old is the moon?\tHow far is the moon?\t0",
                '3\t5\t6\t"Is ""this"" it?"\tWhat is it?\t1',
                "4\t6\t7\tWhat is it?\tIs it that?\t1",
                "5\t5\t7\tIs this it?\tIs it that?\t0",
            )
        )
        + "\n"
    )
    rows = quora(path)
    answers = {row.prompt: row.answer_id for row in rows}
    assert set(answers) == {
        "How old is the moon?",
        "What is the moon's age?",
        "Age of the moon?",
        "How far is the moon?",
    }
    assert len(set(answers.values())) == 2
    assert answers["How old is the moon?"] == answers["Age of the moon?"]
    assert {row.kind for row in rows} == {"duplicate", "single"}
    assert quora(path) == rows, "the order is seeded"
    write(rows, tmp_path / "out.jsonl")
    assert [(r.prompt, r.answer_id) for r in read(tmp_path / "out.jsonl")] == [
        (r.prompt, r.answer_id) for r in rows
    ]


def test_vcache() -> None:
    """Either spelling of the set's id, and a task before the text."""
    rows = list(
        vcache(
            [
                {"prompt": "hello", "id_set": 3, "response_gpt-4o-mini": "hi"},
                {"task": "Classify:", "text": "a book", "ID_Set": 4},
            ]
        )
    )
    assert [(r.prompt, r.answer_id) for r in rows] == [
        ("hello", "set/3"),
        ("Classify: a book", "set/4"),
    ]


def test_other_files_are_refused(tmp_path: Path) -> None:
    """With what is missing."""
    path = tmp_path / "other.tsv"
    path.write_text("a\tb\n1\t2\n")
    with pytest.raises(ValueError, match="is_duplicate"):
        quora(path)
    with pytest.raises(ValueError, match="row 1 has no id_set"):
        list(vcache([{"prompt": "p"}]))
