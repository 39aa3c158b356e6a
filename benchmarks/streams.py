"""Streams of prompts in order of arrival, with what each one's right answer is.

A stream is a JSON Lines file (gzip or not): `prompt` and `answer_id`; optional `history`
(chat messages before the prompt), `tenant`, `t` (seconds), `kind`, `src`, `neg` and
`meaning_id`. A stored answer is right for a prompt exactly when its `answer_id`, and its
tenant, are the prompt's.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SUPPORT = Path(__file__).parent / "data" / "support.jsonl"


@dataclass(frozen=True, slots=True)
class Row:
    """One prompt of a stream.

    Attributes:
        at: seconds since the stream began; None: the stream has no times.
    """

    prompt: str
    answer_id: str
    history: tuple[Mapping[str, Any], ...] = ()
    tenant: str = "default"
    at: float | None = None
    kind: str = "all"

    @property
    def right(self) -> tuple[str, str]:
        """What a stored answer must have to be right."""
        return self.tenant, self.answer_id


def read(path: Path, *, by_meaning: bool = False) -> list[Row]:
    """All rows of a stream.

    Args:
        by_meaning: answers in another language are right too (`meaning_id`).

    Raises:
        ValueError: a line is none; which one, and why.
    """
    opener: Any = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        return list(_rows(lines, path, by_meaning))


def _rows(lines: Iterable[str], path: Path, by_meaning: bool) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield _row(json.loads(line), by_meaning)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from None


def _row(value: Any, by_meaning: bool) -> Row:
    if not isinstance(value, dict) or not isinstance(value.get("prompt"), str):
        raise ValueError('a line is an object with a "prompt" and an "answer_id"')
    answer = value.get("meaning_id") if by_meaning else None
    if (answer or value.get("answer_id")) is None:
        raise ValueError('there is no "answer_id"')
    at = value.get("t")
    return Row(
        value["prompt"],
        str(answer or value["answer_id"]),
        tuple(value.get("history") or ()),
        str(value.get("tenant") or "default"),
        None if at is None else float(at),
        str(value.get("kind") or value.get("src") or "all"),
    )
