"""A file of prompts, answered through the cache: each distinct prompt is asked once.

python examples/batch.py
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path

import semcache
from semcache.batch import BatchProcessor

PROMPTS = ["What are your hours?", "Where is my parcel?", "What are your hours?"]


async def ask_model(request: semcache.Request) -> semcache.Completion:
    """Stands for your model."""
    await asyncio.sleep(0.05)
    part = request.messages[-1].parts[0]
    return semcache.Completion(f"An answer to {getattr(part, 'text', '')!r}.")


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as directory,
        semcache.SemanticCache(Path(directory) / "cache") as cache,
    ):
        source, target = Path(directory) / "in.jsonl", Path(directory) / "out.jsonl"
        source.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))

        async def ask(request: semcache.Request) -> semcache.Completion:
            return await cache.aanswer(request, ask_model)

        report = asyncio.run(BatchProcessor(ask, concurrency=8).run(source, target))
        for line in map(json.loads, target.read_text().splitlines()):
            print(line["custom_id"], "->", line["answer"])
        print(f"{report.progress.done} lines, {cache.stats().records} calls to the model")


if __name__ == "__main__":
    main()
