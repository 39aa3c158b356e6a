"""Rows of a SQLite file read straight off its pages, past whatever leads to them.

Where an inner page of a table is lost, SQLite can no longer find the pages below it, though
they are whole. Here every page that is a leaf of a table is read for what it holds
(https://sqlite.org/fileformat2.html, sections 1.5 and 1.6). Pages on the list of free ones are
left out, since they still hold rows that were deleted; where the header is lost, that list is
too, and whoever reads must know by other means what was deleted.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

Value = int | float | str | bytes | None
Row = tuple[int, tuple[Value, ...]]
"""(rowid, columns; a column that is the rowid itself is None)"""

_LEAF = 0x0D
_USUAL_SIZE = 4096
"""Bytes of a page, where the header that says so is lost."""
_INTEGERS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}


def leaf_rows(path: Path) -> Iterator[Row]:
    """Every row of every table that can be read. Raises `OSError`; garbage is passed over."""
    raw = path.read_bytes()
    size, reserved, free = _USUAL_SIZE, 0, set[int]()
    whole = has_header(raw)
    if whole:
        size = int.from_bytes(raw[16:18], "big")
        size, reserved = 65536 if size == 1 else size, raw[20]
    file = _File(raw, size, reserved)
    if whole:
        free = file.free_pages()
    for number in range(1, len(raw) // file.size + 1):
        if number not in free:
            yield from file.rows(number)


def has_header(raw: bytes) -> bool:
    """Whether a file says what its pages are like, and which are free."""
    size = int.from_bytes(raw[16:18], "big") if len(raw) >= 100 else 0
    return raw[:15] == b"SQLite format 3" and (size == 1 or (size >= 512 and not size & size - 1))


class _File:
    """The pages of a file."""

    def __init__(self, raw: bytes, size: int, reserved: int) -> None:
        self._raw = raw
        self.size = size
        self._usable = size - reserved

    def page(self, number: int) -> bytes:
        page = self._raw[(number - 1) * self.size : number * self.size]
        if number < 1 or len(page) < self.size:
            raise ValueError(f"there is no page {number}")
        return page

    def free_pages(self) -> set[int]:
        found: set[int] = set()
        trunk = int.from_bytes(self._raw[32:36], "big")
        while trunk and trunk not in found:
            found.add(trunk)
            try:
                page = self.page(trunk)
            except ValueError:
                break
            count = min(int.from_bytes(page[4:8], "big"), self._usable // 4 - 2)
            found.update(struct.unpack_from(f">{count}I", page, 8))
            trunk = int.from_bytes(page[:4], "big")
        return found

    def rows(self, number: int) -> Iterator[Row]:
        """The rows of a page, if it is a leaf of a table."""
        page = self.page(number)
        start = 100 if number == 1 else 0
        if page[start] != _LEAF:
            return
        count = int.from_bytes(page[start + 3 : start + 5], "big")
        for place in range(min(count, self._usable // 4)):
            at = start + 8 + 2 * place
            try:
                yield self._row(page, int.from_bytes(page[at : at + 2], "big"))
            except (ValueError, IndexError, struct.error):
                continue

    def _row(self, page: bytes, at: int) -> Row:
        length, at = _varint(page, at)
        rowid, at = _varint(page, at)
        return _signed(rowid), _columns(self._payload(page, at, length))

    def _payload(self, page: bytes, at: int, length: int) -> bytes:
        """A row's bytes, with those that lie on overflow pages."""
        most = self._usable - 35
        if length <= most:
            local = length
        else:
            least = (self._usable - 12) * 32 // 255 - 23
            wanted = least + (length - least) % (self._usable - 4)
            local = wanted if wanted <= most else least
        if length > len(self._raw) or at + local > len(page):
            raise ValueError("a row is longer than its file")
        parts, left = [page[at : at + local]], length - local
        following = int.from_bytes(page[at + local : at + local + 4], "big") if left else 0
        while left > 0:
            over = self.page(following)
            parts.append(over[4 : 4 + min(left, self._usable - 4)])
            left -= len(parts[-1])
            following = int.from_bytes(over[:4], "big")
        return b"".join(parts)


def _columns(payload: bytes) -> tuple[Value, ...]:
    end, at = _varint(payload, 0)
    if end > len(payload):
        raise ValueError("a row's header is longer than the row")
    kinds = []
    while at < end:
        kind, at = _varint(payload, at)
        kinds.append(kind)
    values: list[Value] = []
    for kind in kinds:
        value, at = _value(payload, at, kind)
        values.append(value)
    if at != len(payload):
        raise ValueError("a row's columns do not fill it")
    return tuple(values)


def _value(payload: bytes, at: int, kind: int) -> tuple[Value, int]:
    """(value, where the next begins)"""
    if kind == 0:
        return None, at
    if kind in _INTEGERS:
        end = at + _INTEGERS[kind]
        return int.from_bytes(payload[at:end], "big", signed=True), end
    if kind == 7:
        return float(struct.unpack_from(">d", payload, at)[0]), at + 8
    if kind in (8, 9):
        return kind - 8, at
    if kind < 12:
        raise ValueError(f"there is no kind {kind}")
    end = at + (kind - 12) // 2
    part = payload[at:end]
    return (part.decode() if kind % 2 else part), end


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """(number, where the next begins): 7 bits a byte, all 8 of a ninth."""
    value = 0
    for place in range(9):
        byte = raw[at + place]
        if place == 8:
            return value << 8 | byte, at + 9
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            return value, at + place + 1
    raise ValueError("unreachable")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
