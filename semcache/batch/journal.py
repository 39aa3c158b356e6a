"""What a batch has done so far, read from its own output, so the two cannot disagree.

A batch writes two files, answers and failures. Each of their lines holds the number of the
input line that it belongs to, and is written with one call. A run that was killed may leave an
incomplete last line, which is removed when the batch is resumed. A third file beside them
identifies the input they belong to.
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
from semcache.private_files import open_to_write

_BLOCK = 65_536


class Done:
    """The set of lines that are done: one bit per line, so a million lines take 125 kB."""

    def __init__(self) -> None:
        self._bits = bytearray()
        self.count = 0

    def add(self, number: int) -> bool:
        """Add a line; return False if it was in the set already."""
        byte, bit = number // 8, 1 << number % 8
        if byte >= len(self._bits):
            self._bits.extend(bytes(max(byte + 1 - len(self._bits), 4096)))
        if self._bits[byte] & bit:
            return False
        self._bits[byte] |= bit
        self.count += 1
        return True

    def __contains__(self, number: int) -> bool:
        byte = number // 8
        return byte < len(self._bits) and bool(self._bits[byte] & 1 << number % 8)


class Journal:
    """The files that a batch writes.

    Args:
        source: the input file.
        target: the file for answers; failures go to a file beside it.
        resume: continue with the files of an earlier run.
        overwrite: start again and replace the files of an earlier run.
        retry_failed: with `resume`, retry the lines that failed.

    Attributes:
        target, failures: the paths of the answers and of the failures.
        size: the size of the input, in bytes.
        done: the lines that are answered or failed.
        failed_before: how many lines failed in earlier runs.

    Raises:
        ConfigError: the files exist already, or belong to another input.
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
        self._input_note = target.with_name(f"{target.name}.batch.json")
        self.done = Done()
        self.failed_before = 0
        for path in (target, self.failures, self._input_note):
            if path.exists() and path.samefile(source):
                raise ConfigError(f"{path} is the input itself; give another file for the answers.")
        if resume and not self._input_note.exists() and target.exists():
            raise ConfigError(
                f"{target} cannot be resumed: {self._input_note}, which identifies its input, is "
                "missing. Give another file for the answers, or --overwrite."
            )
        fingerprint = _fingerprint(source)
        self.size: int = fingerprint["size"]
        self._lock = _open_locked(self._input_note)
        try:
            self._prepare(source, fingerprint, resume, overwrite, retry_failed)
        except BaseException:
            os.close(self._lock)
            raise
        self._out = open_to_write(target, os.O_APPEND)
        self._failed = open_to_write(self.failures, os.O_APPEND)

    def _prepare(
        self,
        source: Path,
        fingerprint: dict[str, Any],
        resume: bool,
        overwrite: bool,
        retry_failed: bool,
    ) -> None:
        """Read the files of an earlier run, or start with empty ones."""
        existing = [p for p in (self.target, self.failures, self._input_note) if _has_content(p)]
        if resume and self._input_note in existing:
            self._check_input(fingerprint, source)
            for path in (self.target, self.failures):
                _remove_torn_line(path)
            if retry_failed:
                self.failures.unlink(missing_ok=True)
            self._read_done()
        elif overwrite or not existing:
            for path in (self.target, self.failures):
                path.unlink(missing_ok=True)
            os.ftruncate(self._lock, 0)
            _write(self._lock, json.dumps({"input": source.name, **fingerprint}).encode() + b"\n")
        else:
            raise ConfigError(
                f"{existing[0]} exists already. Continue with --resume, start again with "
                "--overwrite, or give another file for the answers."
            )

    def answered(self, number: int, line: bytes) -> None:
        """Write an answer; once this returns, it survives a crash of the process."""
        if self.done.add(number):
            _write(self._out, line)

    def failed(self, number: int, line: bytes) -> None:
        """Write a failure."""
        if self.done.add(number):
            _write(self._failed, line)

    def close(self) -> None:
        """Close the files; remove the file of failures if it is empty."""
        for file in (self._out, self._failed):
            os.fsync(file)
            os.close(file)
        os.close(self._lock)
        if self.failures.exists() and not self.failures.stat().st_size:
            self.failures.unlink()

    def _check_input(self, fingerprint: dict[str, Any], source: Path) -> None:
        try:
            note = json.loads(self._input_note.read_text())
        except ValueError:
            raise ConfigError(
                f"{self._input_note} cannot be read; start again with --overwrite."
            ) from None
        # Lines may have been appended to the input since; the earlier ones must be unchanged.
        size = note.get("size", -1)
        same = 0 <= size <= fingerprint["size"] and note.get("sha256") == _digest(source, size)
        if not same:
            raise ConfigError(
                f"{self.target} was made from another input ({note.get('input')}) than {source}. "
                "Give that input, another file for the answers, or --overwrite."
            )

    def _read_done(self) -> None:
        for path in (self.target, self.failures):
            for number in _numbers(path):
                self.done.add(number)
                self.failed_before += path == self.failures


def _numbers(path: Path) -> Iterator[int]:
    if not path.exists():
        return
    with path.open("rb") as file:
        for row, line in enumerate(file, 1):
            try:
                yield int(json.loads(line)["line"])
            except (ValueError, KeyError, TypeError):
                raise ConfigError(
                    f"{path}, line {row}, was not written by a batch, so --resume cannot tell what "
                    "is done. Repair the file, or start again with --overwrite."
                ) from None


def _remove_torn_line(path: Path) -> None:
    """Remove whatever follows the last line break."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        new_end = end
        while new_end > 0:
            start = max(0, new_end - _BLOCK)
            file.seek(start)
            line_break = file.read(new_end - start).rfind(b"\n")
            if line_break >= 0:
                new_end = start + line_break + 1
                break
            new_end = start
        if new_end < end:
            file.truncate(new_end)


def _has_content(path: Path) -> bool:
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


def _open_locked(path: Path) -> int:
    """Open a file with an exclusive lock, which the system releases if the process dies.

    Raises:
        ConfigError: another run holds the lock.
    """
    file = open_to_write(path, os.O_RDWR)
    if sys.platform != "win32":
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            raise ConfigError(
                f"Another run is writing {path.name.removesuffix('.batch.json')}; wait until it "
                "has ended."
            ) from None
    return file


def _write(file: int, line: bytes) -> None:
    remaining = memoryview(line)
    while remaining:
        remaining = remaining[os.write(file, remaining) :]
