"""Real prompts for the benchmarks that need many.

They come from a folder of JSON Lines files (gzip or not) with a field "prompt",
"text", "a" or "b". Without one, prompts are made from the demo's questions; that is
said, and good for latency only, since made prompts lie closer together than real ones.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path

from benchmarks.common import say
from semcache.tools.demo import questions

DEFAULT = Path(__file__).parents[2] / "shared" / "data"
_FIELDS = ("prompt", "text", "a", "b")
_MAX_CHARS = 600


MADE = "\x1fmade"
"""Ends prompts that were made up because there are not enough real ones."""


def load(
    folder: Path, count: int, seed: int = 7, *, make_up: bool = False
) -> tuple[list[str], str]:
    """(count distinct prompts in a seeded order, where they are from).

    Args:
        make_up: fill up with made ones, marked by `MADE` at their end, which are the last.
    """
    if folder.is_dir():
        found = sorted(set(_texts(folder)))
        source = "public question sets"
    else:
        say(f"{folder} is not there: prompts are made from the demo's questions")
        found = sorted(_made(count))
        source = "made from the demo's questions"
    if len(found) < count and make_up:
        random.Random(seed).shuffle(found)
        filled = [f"{found[i % len(found)]} {i}{MADE}" for i in range(count - len(found))]
        return [*found, *filled], f"{source}, {len(filled):,} of them made up"
    if len(found) < count:
        raise SystemExit(f"{count:,} prompts are needed, {folder} holds {len(found):,}")
    random.Random(seed).shuffle(found)
    return found[:count], source


def is_real(text: str) -> bool:
    """Whether a prompt was not made up: a made one's words say nothing of where its vector lies."""
    return not text.endswith(MADE)


def _texts(folder: Path) -> Iterator[str]:
    for path in sorted([*folder.rglob("*.jsonl"), *folder.rglob("*.jsonl.gz")]):
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                for name in _FIELDS:
                    text = row.get(name)
                    if isinstance(text, str) and 0 < len(text.strip()) <= _MAX_CHARS:
                        yield text.strip()


def _made(count: int) -> Iterator[str]:
    stems = [question.prompt.rstrip("?!. ") for question in questions()]
    for number in range(count * 2):
        stem = stems[number % len(stems)]
        yield f"{stem}, for case {number // len(stems)}?"
