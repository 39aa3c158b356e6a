"""Write the pairs that the verifier learns from, and those that it is measured on.

    python -m benchmarks.verifier.prepare --data ../shared/data --out DIR

Writes DIR/pairs.jsonl and DIR/evaluate.jsonl: lines of [stored, asked, same, source, weight].
The second holds every prompt of the streams with its nearest earlier ones; no text of it is
in the first.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.common import say
from benchmarks.replay import Remembering
from benchmarks.streams import SUPPORT, read
from benchmarks.verifier.pairs import build
from benchmarks.verifier.prior import STREAMS, near_pairs
from semcache.embedders.default import DefaultEmbedder

if TYPE_CHECKING:
    from semcache.types import Vector


def evaluation(data: Path, embedder: Remembering) -> Iterable[list[Any]]:
    """Every prompt of the streams with its nearest earlier ones, and whether they agree."""
    for path in [*(data / f"streams/{name}.jsonl.gz" for name in STREAMS), SUPPORT]:
        rows = read(path)
        embedder.prepare([row.prompt for row in rows])
        source = path.name.split(".")[0]
        for a, b, _, same in near_pairs(rows, embedder.embed([row.prompt for row in rows])):
            yield [a, b, int(same), source, 1.0]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    embedder = Remembering(DefaultEmbedder())

    def embed(texts: Sequence[str]) -> Vector:
        embedder.prepare(texts)
        return embedder.embed(texts)

    pairs = [[p.a, p.b, p.same, p.source, p.weight] for p in build(args.data, embed)]
    write(args.out / "pairs.jsonl", pairs)
    write(args.out / "evaluate.jsonl", evaluation(args.data, embedder))


def write(path: Path, rows: Iterable[list[Any]]) -> None:
    """JSON lines."""
    with path.open("w", encoding="utf-8") as file:
        count = 0
        for count, row in enumerate(rows, 1):  # noqa: B007 - how many it was
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    say(f"{path}: {count:,} pairs")


if __name__ == "__main__":
    main()
