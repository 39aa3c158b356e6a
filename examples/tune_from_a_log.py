"""How many calls a cache would have saved on a log of yours, before it is switched on.

python examples/tune_from_a_log.py

`semcache replay LOG.jsonl` prints this for your own log, and `semcache tune LOG.jsonl` fits the
verifier to it. Nothing leaves the machine.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

CALLS = [
    ("How do I reset my password?", "Open Settings and choose Security."),
    ("how do i reset my password", "Open Settings and choose Security."),
    ("Where can I change my password?", "Open Settings and choose Security."),
    ("What are your opening hours?", "From nine to five."),
    ("When are you open?", "From nine to five."),
    ("Do you ship to Norway?", "Yes, within five days."),
    ("Do you ship to Japan?", "No, only within Europe."),
]


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "log.jsonl"
        rows = ({"prompt": prompt, "response": answer} for prompt, answer in CALLS)
        log.write_text("".join(json.dumps(row) + "\n" for row in rows))
        command = [sys.executable, "-m", "semcache", "replay", str(log), "--threshold", "0.8"]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
