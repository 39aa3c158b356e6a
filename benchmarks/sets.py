"""Public sets as streams, for those who are online.

python -m benchmarks.sets qqp quora_duplicate_questions.tsv OUT.jsonl
python -m benchmarks.sets vcache vCache/SemBenchmarkLmArena OUT.jsonl     needs "datasets"

Then `python -m benchmarks.hit_rate --stream OUT.jsonl`. Mind the sets' licences: Quora's is for
non-commercial use.

- Quora Question Pairs: `id, qid1, qid2, question1, question2, is_duplicate`, tab-separated.
  Questions joined by duplicate pairs share an answer; groups with a pair that is judged
  different are left out. The order is that of the pairs, and a seed shuffles each group in.
- vCache's benchmarks (arXiv 2502.03771): rows with `prompt`, or `task` and `text`, and
  `id_set` (or `ID_Set`), equal where answers may be shared. The order is the set's own.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.streams import Row


def quora(path: Path, seed: int = 7) -> list[Row]:
    """The stream of a Quora Question Pairs file.

    Raises:
        ValueError: it has other columns.
    """
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t")
        wanted = {"qid1", "qid2", "question1", "question2", "is_duplicate"}
        if not wanted <= set(reader.fieldnames or ()):
            raise ValueError(f"{path} lacks the columns {', '.join(sorted(wanted))}")
        pairs = list(reader)
    texts: dict[str, str] = {}
    groups = _Groups()
    for pair in pairs:
        for side in ("1", "2"):
            texts.setdefault(pair[f"qid{side}"], (pair[f"question{side}"] or "").strip())
        if pair["is_duplicate"] == "1":
            groups.join(pair["qid1"], pair["qid2"])
    torn = {
        groups.of(pair["qid1"])
        for pair in pairs
        if pair["is_duplicate"] == "0" and groups.of(pair["qid1"]) == groups.of(pair["qid2"])
    }
    rows = [
        Row(text, f"qqp/{groups.of(qid)}", kind="duplicate" if groups.size(qid) > 1 else "single")
        for qid, text in texts.items()
        if text and groups.of(qid) not in torn
    ]
    random.Random(seed).shuffle(rows)
    return rows


def vcache(rows: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
    """The stream of one of vCache's benchmarks.

    Raises:
        ValueError: a row has other fields.
    """
    for number, row in enumerate(rows, 1):
        label = row.get("id_set", row.get("ID_Set"))
        text = row.get("prompt")
        if text is None and row.get("text") is not None:
            text = " ".join(filter(None, (row.get("task"), row["text"])))
        if label is None or not isinstance(text, str):
            raise ValueError(f"row {number} has no id_set, or no prompt and no text: {sorted(row)}")
        yield Row(text, f"set/{label}")


class _Groups:
    """Questions that share an answer (union-find)."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}
        self._sizes: dict[str, int] = defaultdict(lambda: 1)

    def of(self, item: str) -> str:
        root = item
        while self._parent.get(root, root) != root:
            root = self._parent[root]
        while self._parent.get(item, item) != root:
            self._parent[item], item = root, self._parent.get(item, item)
        return root

    def join(self, one: str, two: str) -> None:
        one, two = self.of(one), self.of(two)
        if one != two:
            self._parent[two] = one
            self._sizes[one] += self._sizes[two]

    def size(self, item: str) -> int:
        return self._sizes[self.of(item)]


def write(rows: Iterable[Row], path: Path) -> int:
    """Write a stream; return how many prompts it has."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            value = {"prompt": row.prompt, "answer_id": row.answer_id, "kind": row.kind}
            file.write(json.dumps(value, ensure_ascii=False) + "\n")
            count += 1
    return count


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("set", choices=("qqp", "vcache"))
    parser.add_argument("source", help="a file, or the set's name on the hub")
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    try:
        if args.set == "qqp":
            rows: Iterable[Row] = quora(Path(args.source))
        else:
            rows = vcache(_from_hub(args.source))
        print(f"{write(rows, args.out):,} prompts in {args.out}")
    except (OSError, ValueError) as error:
        sys.exit(f"benchmarks.sets: {error}")


def _from_hub(name: str) -> Iterable[Mapping[str, Any]]:
    try:
        from datasets import load_dataset
    except ImportError:
        sys.exit('benchmarks.sets: this needs more: pip install "semcache-llm[sets]"')
    rows: Iterable[Mapping[str, Any]] = load_dataset(name, split="train", streaming=True)
    return rows


if __name__ == "__main__":
    main()
