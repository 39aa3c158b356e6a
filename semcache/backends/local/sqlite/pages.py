"""Reads rows directly from the pages of a SQLite file, without following its b-trees.

If an interior page of a table is lost, SQLite can no longer find the pages below it, although they
are intact. Here every leaf page of a table is read, wherever it is in the file
(https://sqlite.org/fileformat2.html, sections 1.5 and 1.6). Pages on the freelist are left out,
since they may still hold deleted rows. If the header is lost, so is the freelist, and the caller
has to know by other means which rows were deleted.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

Value = int | float | str | bytes | None
Row = tuple[int, tuple[Value, ...]]
"""(rowid, columns); a column that is an alias of the rowid is None"""

_TABLE_LEAF = 0x0D
_DEFAULT_PAGE_SIZE = 4096
"""The page size in bytes to assume if the header is lost."""
_INTEGER_SIZES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
"""The size in bytes of integers, by serial type."""


def leaf_rows(path: Path) -> Iterator[Row]:
    """Every readable row of every table; unreadable ones are skipped. Raises `OSError`."""
    raw = path.read_bytes()
    size, reserved, free = _DEFAULT_PAGE_SIZE, 0, set[int]()
    header = has_header(raw)
    if header:
        size = int.from_bytes(raw[16:18], "big")
        size, reserved = 65536 if size == 1 else size, raw[20]
    file = _File(raw, size, reserved)
    if header:
        free = file.free_pages()
    for number in range(1, len(raw) // file.size + 1):
        if number not in free:
            yield from file.rows(number)


def has_header(raw: bytes) -> bool:
    """Whether a file has an intact header, which gives the page size and the freelist."""
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
        """The numbers of all pages on the freelist."""
        free: set[int] = set()
        trunk = int.from_bytes(self._raw[32:36], "big")
        while trunk and trunk not in free:
            free.add(trunk)
            try:
                page = self.page(trunk)
            except ValueError:
                break
            count = min(int.from_bytes(page[4:8], "big"), self._usable // 4 - 2)
            free.update(struct.unpack_from(f">{count}I", page, 8))
            trunk = int.from_bytes(page[:4], "big")
        return free

    def rows(self, number: int) -> Iterator[Row]:
        """The readable rows of a page, if it is a leaf page of a table."""
        page = self.page(number)
        start = 100 if number == 1 else 0
        if page[start] != _TABLE_LEAF:
            return
        count = int.from_bytes(page[start + 3 : start + 5], "big")
        for cell in range(min(count, self._usable // 4)):
            at = start + 8 + 2 * cell
            try:
                yield self._row(page, int.from_bytes(page[at : at + 2], "big"))
            except (ValueError, IndexError, struct.error):
                continue

    def _row(self, page: bytes, at: int) -> Row:
        length, at = _varint(page, at)
        rowid, at = _varint(page, at)
        return _signed(rowid), _columns(self._payload(page, at, length))

    def _payload(self, page: bytes, at: int, length: int) -> bytes:
        """The bytes of a row, including those on overflow pages."""
        max_local = self._usable - 35
        if length <= max_local:
            local = length
        else:
            min_local = (self._usable - 12) * 32 // 255 - 23
            surplus = min_local + (length - min_local) % (self._usable - 4)
            local = surplus if surplus <= max_local else min_local
        if length > len(self._raw) or at + local > len(page):
            raise ValueError("a row is longer than its file or page")
        parts, remaining = [page[at : at + local]], length - local
        next_page = int.from_bytes(page[at + local : at + local + 4], "big") if remaining else 0
        while remaining > 0:
            overflow = self.page(next_page)
            parts.append(overflow[4 : 4 + min(remaining, self._usable - 4)])
            remaining -= len(parts[-1])
            next_page = int.from_bytes(overflow[:4], "big")
        return b"".join(parts)


def _columns(payload: bytes) -> tuple[Value, ...]:
    end, at = _varint(payload, 0)
    if end > len(payload):
        raise ValueError("a row's header is longer than the row")
    serial_types = []
    while at < end:
        serial_type, at = _varint(payload, at)
        serial_types.append(serial_type)
    values: list[Value] = []
    for serial_type in serial_types:
        value, at = _value(payload, at, serial_type)
        values.append(value)
    if at != len(payload):
        raise ValueError("the columns of a row do not add up to its length")
    return tuple(values)


def _value(payload: bytes, at: int, serial_type: int) -> tuple[Value, int]:
    """(value, offset of the next one)"""
    if serial_type == 0:
        return None, at
    if serial_type in _INTEGER_SIZES:
        end = at + _INTEGER_SIZES[serial_type]
        return int.from_bytes(payload[at:end], "big", signed=True), end
    if serial_type == 7:
        return float(struct.unpack_from(">d", payload, at)[0]), at + 8
    if serial_type in (8, 9):
        return serial_type - 8, at
    if serial_type < 12:
        raise ValueError(f"there is no serial type {serial_type}")
    end = at + (serial_type - 12) // 2
    part = payload[at:end]
    return (part.decode() if serial_type % 2 else part), end


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """(number, offset after it): 7 bits of each byte, all 8 of a ninth."""
    value = 0
    for index in range(9):
        byte = raw[at + index]
        if index == 8:
            return value << 8 | byte, at + 9
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            return value, at + index + 1
    raise ValueError("unreachable")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
