"""A program that is interrupted at random moments while it uses a cache; run by `test_interrupts`.

python -m tests.security.interrupted DIRECTORY SEED INTERRUPTIONS

It prints, as JSON, how often it was interrupted, how many acknowledged entries are lost, how many
calls are still in flight, and how long the last calls took.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator

from tests.helpers import open_cache

HANG = 60
"""Seconds without progress after which the program prints where it hangs, and ends."""


def main(directory: str, seed: int, interruptions: int) -> None:
    logging.disable(logging.CRITICAL)
    sys.unraisablehook = lambda _: None  # an interruption in a finaliser is Python's own
    rng = random.Random(seed)
    cache = open_cache(directory)
    handled = threading.Event()

    @cache.cached
    def ask(prompt: str) -> str:
        return f"answer {prompt}"

    @cache.cached
    def stream(prompt: str) -> Iterator[str]:
        yield "a"
        yield prompt

    def interrupt(after: float) -> None:
        time.sleep(after)
        while not handled.is_set():
            os.kill(os.getpid(), signal.SIGINT)
            handled.wait(3)

    acknowledged: list[str] = []

    def use() -> None:
        question = " ".join(f"{rng.getrandbits(40):x}" for _ in range(4))
        chosen = rng.random()
        if chosen < 0.35:
            assert ask(question) == f"answer {question}"
        elif chosen < 0.6:
            assert list(stream(question)) == ["a", question]
        elif chosen < 0.8:
            cache.put(question, "put")
            acknowledged.append(question)
        else:
            cache.lookup(question)

    done = 0
    while done < interruptions:
        faulthandler.dump_traceback_later(HANG, exit=True)
        handled.clear()
        thread = threading.Thread(target=interrupt, args=(rng.random() * 0.02,), daemon=True)
        try:
            thread.start()
            while True:
                use()
        except KeyboardInterrupt:
            done += 1
            handled.set()
        while thread.is_alive():
            try:
                thread.join()
            except KeyboardInterrupt:
                done += 1
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    start = time.monotonic()
    assert ask("final") == "answer final"
    assert list(stream("the end")) == ["a", "the end"]
    seconds = time.monotonic() - start
    lost = sum(cache.get(question) is None for question in acknowledged)
    cache.close()
    counts = {"interrupted": done, "kept": len(acknowledged), "lost": lost, "seconds": seconds}
    print(json.dumps(counts))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
