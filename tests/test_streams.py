"""Real traffic through the real cache: nothing crosses a tenant or a conversation."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from semcache import SemanticCache
from semcache.embedders.default import DefaultEmbedder


def rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


@pytest.mark.timeout(600)
def test_no_answer_crosses_tenants(
    streams: Path, tmp_path: Path, embedder: DefaultEmbedder
) -> None:
    """Eight tenants, 600 of whose prompts repeat another tenant's word for word."""
    served = 0
    with SemanticCache(tmp_path, embedder=embedder, threshold=0.8) as cache:
        for row in rows(streams / "s2_tenants.jsonl.gz"):
            lookup = cache.lookup(row["prompt"], namespace=row["tenant"])
            if lookup.completion is None:
                cache.record(lookup, f"{row['tenant']}|{row['answer_id']}")
            else:
                served += 1
                assert lookup.completion.text.split("|")[0] == row["tenant"]
                assert lookup.entry is not None
                assert lookup.entry.namespace == row["tenant"]
    assert served > 2000


@pytest.mark.timeout(600)
def test_replayed_conversations_hit_and_none_is_mixed_up(
    streams: Path, tmp_path: Path, embedder: DefaultEmbedder
) -> None:
    """Every replayed turn hits; nothing is served from under another history."""
    histories: dict[str, str] = {}
    replays = 0
    with SemanticCache(tmp_path, embedder=embedder, threshold=0.8) as cache:
        for row in rows(streams / "s5_multiturn.jsonl.gz"):
            earlier = row.get("history", [])
            history = json.dumps([[m["role"], m["content"].strip()] for m in earlier])
            messages = [*earlier, {"role": "user", "content": row["prompt"]}]
            lookup = cache.lookup(messages=messages)
            if row["kind"] == "replay":
                replays += 1
                assert lookup.hit, row["i"]
            if lookup.completion is None:
                answer = str(row["i"])
                histories[answer] = history
                cache.record(lookup, answer)
            else:
                assert histories[lookup.completion.text] == history, row["i"]
    assert replays > 500
