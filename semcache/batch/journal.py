"""What a batch has done so far, read off its own output: there is nothing to fall out of step.

Every line of the two files that a batch writes, answers and failures, names the line of the
input that it is for, and is written in one piece. A run that was killed may leave a piece of
a last line, which is cut off when the batch goes on. A third file beside them says which input
they belong to.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from semcache.errors import ConfigError

_HEAD = 65_536


class Done:
    """Which lines are done: a bit for each, so that a million take 125 kB."""

    def __init__(self) -> None:
        self._bits = bytearray()
        self.count = 0

    def add(self, number: int) -> bool:
        """Note a line; False if it was noted before."""
        place, bit = number // 8, 1 << number % 8
        if place >= len(self._bits):
            self._bits.extend(bytes(max(place + 1 - len(self._bits), 4096)))
        if self._bits[place] & bit:
            return False
        self._bits[place] |= bit
        self.count += 1
        return True

    def __contains__(self, number: int) -> bool:
        place = number // 8
        return place < len(self._bits) and bool(self._bits[place] & 1 << number % 8)


class Journal:
    """The files that a batch writes. `size`: of the input, in bytes.

    Args:
        source: the input. target: where answers go; failures go to a file beside it.
        resume: go on with what is there. overwrite: begin anew, whatever is there.
        retry_failed: with `resume`, lines that failed are tried again.

    Raises:
        ConfigError: there is something already, or it belongs to another input.
        OSError: a file cannot be read or written.
    """

    def __init__(
        self,
        source: Path,
        target: Path,
        *,
        resume: bool = False,
        overwrite: bool = False,
        retry_failed: bool = False,
    ) -> None:
        self.target = target
        self.failures = target.with_name(f"{target.name}.failures.jsonl")
        self._note = target.with_name(f"{target.name}.batch.json")
        self.done = Done()
        self.failed_before = 0
        files = (target, self.failures, self._note)
        for path in files:
            if path.exists() and path.samefile(source):
                raise ConfigError(f"{path} is the input itself; give another file for the answers.")
        if resume and not self._note.exists() and target.exists():
            raise ConfigError(
                f"{self._note}, which says what {target} was made from, is not there, so it cannot "
                "be gone on with. Give another file for the answers, or --overwrite."
            )
        fingerprint = _fingerprint(source)
        self.size: int = fingerprint["size"]
        self._lock = _locked(self._note)
        try:
            self._begin(source, fingerprint, resume, overwrite, retry_failed)
        except BaseException:
            os.close(self._lock)
            raise
        self._out = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._failed = os.open(self.failures, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def _begin(
        self,
        source: Path,
        fingerprint: dict[str, Any],
        resume: bool,
        overwrite: bool,
        retry_failed: bool,
    ) -> None:
        """Go on with what is there, or begin anew."""
        there = [p for p in (self.target, self.failures, self._note) if _filled(p)]
        if resume and self._note in there:
            self._check(fingerprint, source)
            for path in (self.target, self.failures):
                _cut_torn_line(path)
            if retry_failed:
                self.failures.unlink(missing_ok=True)
            self._read()
        elif overwrite or not there:
            for path in (self.target, self.failures):
                path.unlink(missing_ok=True)
            os.ftruncate(self._lock, 0)
            _write(self._lock, json.dumps({"input": source.name, **fingerprint}).encode() + b"\n")
        else:
            raise ConfigError(
                f"{there[0]} exists already. Go on with it by --resume, begin anew with "
                "--overwrite, or give another file for the answers."
            )

    def answered(self, number: int, line: bytes) -> None:
        """Write an answer; once this returns it survives the death of the process."""
        if self.done.add(number):
            _write(self._out, line)

    def failed(self, number: int, line: bytes) -> None:
        """Write a failure."""
        if self.done.add(number):
            _write(self._failed, line)

    def close(self) -> None:
        """Close the files; one of failures that is empty is taken away."""
        for file in (self._out, self._failed):
            os.fsync(file)
            os.close(file)
        os.close(self._lock)
        if self.failures.exists() and not self.failures.stat().st_size:
            self.failures.unlink()

    def _check(self, fingerprint: dict[str, Any], source: Path) -> None:
        try:
            noted = json.loads(self._note.read_text())
        except ValueError:
            raise ConfigError(
                f"{self._note} cannot be read; begin anew with --overwrite."
            ) from None
        # An input that has grown since is the same one; one that was changed is another.
        size = noted.get("size", -1)
        same = 0 <= size <= fingerprint["size"] and noted.get("sha256") == _digest(source, size)
        if not same:
            raise ConfigError(
                f"{self.target} was made from another input ({noted.get('input')}) than {source}. "
                "Give that input, another file for the answers, or --overwrite."
            )

    def _read(self) -> None:
        for path in (self.target, self.failures):
            for number in _numbers(path):
                self.done.add(number)
                self.failed_before += path == self.failures


def _numbers(path: Path) -> Iterator[int]:
    if not path.exists():
        return
    with path.open("rb") as file:
        for place, line in enumerate(file, 1):
            try:
                yield int(json.loads(line)["line"])
            except (ValueError, KeyError, TypeError):
                raise ConfigError(
                    f"{path}, line {place}, was not written by a batch; --resume cannot tell what "
                    "is done. Mend it, or begin anew with --overwrite."
                ) from None


def _cut_torn_line(path: Path) -> None:
    """Take away what stands after the last line break."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        keep = end
        while keep > 0:
            begin = max(0, keep - _HEAD)
            file.seek(begin)
            found = file.read(keep - begin).rfind(b"\n")
            if found >= 0:
                keep = begin + found + 1
                break
            keep = begin
        if keep < end:
            file.truncate(keep)


def _filled(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _fingerprint(source: Path) -> dict[str, Any]:
    size = source.stat().st_size
    return {"size": size, "sha256": _digest(source, size)}


def _digest(source: Path, size: int) -> str:
    """SHA-256 of the first `size` bytes."""
    digest = hashlib.sha256()
    with source.open("rb") as file:
        while size > 0 and (block := file.read(min(size, 2**20))):
            digest.update(block)
            size -= len(block)
    return digest.hexdigest()


def _locked(note: Path) -> int:
    """The note's file, held for this run alone; the system lets go of it when the process dies.

    Raises:
        ConfigError: another run holds it.
    """
    file = os.open(note, os.O_RDWR | os.O_CREAT, 0o644)
    if sys.platform != "win32":
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            raise ConfigError(
                f"Another run is writing {note.name.removesuffix('.batch.json')}; wait for it."
            ) from None
    return file


def _write(file: int, line: bytes) -> None:
    left = memoryview(line)
    while left:
        left = left[os.write(file, left) :]
