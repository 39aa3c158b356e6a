"""A segment on disk: written to a temporary file, renamed into place, memory-mapped for reading.

The first page holds one line of JSON, the header, with a checksum of its own; the arrays follow.
The header names the store and the embedder that the segment was made for, how far it had followed
the store, and a CRC-32 of the arrays. A snapshot is only a copy: if anything does not match, it is
discarded and rebuilt from the store. For the same reason it is not synced to disk: after a power
failure the checksum tells whether it is whole.
"""

from __future__ import annotations

import json
import mmap
import os
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semcache.backends.local.faiss.segment import Arrays, Segment
from semcache.backends.local.files import mode_beside
from semcache.private_files import opener

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from semcache.backends.local.faiss.merging import Plan
    from semcache.types import ChangeCursor

_FORMAT = "semcache-index-4"
_PAGE = 4096
_ALIGNMENT = 64
_CHUNK = 1 << 24
"""Bytes that are checked at a time."""
_DTYPES = {
    "scale": "<f4", "keys": "|u1", "first_list": "<i8", "first_centroid": "<i8",
    "made_for": "<i8", "centroids": "<f4", "coarse": "|u1", "first_row": "<i8", "ids": "<i8",
    "sorted_ids": "<i8", "middle": "|u1", "codes": "|u1", "signs": "|u1",
}  # fmt: skip
"""The arrays in the order of the file."""


class SnapshotError(Exception):
    """The snapshot cannot be used; the index must be rebuilt from the store."""


class SnapshotMismatchError(SnapshotError):
    """The snapshot looks intact, but belongs to another store, embedder or version."""


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """Which store a snapshot belongs to, and how much of the store it covers.

    Attributes:
        store_id: the store's own random id.
        fingerprint: names the embedder of the vectors.
        last_id: the last entry of the store that the index includes.
        last_deletion: the last deletion (sequence number) that the index includes.
    """

    store_id: str
    fingerprint: str
    last_id: int = 0
    last_deletion: int = 0

    @classmethod
    def of(cls, position: ChangeCursor, fingerprint: str | None) -> SnapshotInfo:
        """The info for an index that has followed a store up to this position."""
        return cls(position.store_id, fingerprint or "", position.last_id, position.last_deletion)


def write(path: Path, facts: SnapshotInfo, plan: Plan) -> None:
    """Write a segment to a temporary file and rename it to `path`.

    Raises:
        OSError: it cannot be written; an earlier snapshot is left untouched.
    """
    name = f"{path}.{os.getpid()}.{os.urandom(4).hex()}.tmp"
    try:
        with open(name, "xb", opener=opener(mode_beside(path))) as file:
            file.write(bytes(_PAGE))
            shapes, crc = {}, 0
            for array, shape, chunks in _parts(plan):
                shapes[array] = shape
                for chunk in chunks:
                    crc = zlib.crc32(chunk, crc)
                    file.write(chunk)
            header = {"format": _FORMAT, "facts": asdict(facts), "crc32": crc, "shapes": shapes}
            file.seek(0)
            file.write(_first_page(header))
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise


def sweep(path: Path) -> None:
    """Delete temporary files of processes that were killed. No other process may be writing."""
    for leftover in path.parent.glob(f"{path.name}.*.tmp"):
        if not leftover.name.startswith(f"{path.name}.{os.getpid()}."):
            leftover.unlink(missing_ok=True)


def _parts(plan: Plan) -> Iterator[tuple[str, list[int], Iterator[bytes]]]:
    """Yield (name, shape, chunks of bytes, padded to the alignment) of each array."""
    signs: list[NDArray[np.uint8]] = []

    def codes() -> Iterator[bytes]:
        for codes_chunk, signs_chunk in plan.codes():
            signs.append(signs_chunk)
            yield codes_chunk.tobytes()

    for name, dtype in _DTYPES.items():
        if name == "codes":
            yield name, [plan.rows, plan.arrays.codes.shape[1]], _padded(codes())
        elif name == "signs":
            shape = [plan.rows, plan.arrays.signs.shape[1]]
            yield name, shape, _padded(chunk.tobytes() for chunk in signs)
        else:
            array = np.ascontiguousarray(getattr(plan.arrays, name), dtype)
            yield name, list(array.shape), _padded(iter([array.tobytes()]))


def _padded(chunks: Iterator[bytes]) -> Iterator[bytes]:
    size = 0
    for chunk in chunks:
        size += len(chunk)
        yield chunk
    if size % _ALIGNMENT:
        yield bytes(_ALIGNMENT - size % _ALIGNMENT)


def _first_page(header: dict[str, Any]) -> bytes:
    text = json.dumps(header).encode()
    page = b"%08x %s\n" % (zlib.crc32(text), text)
    if len(page) > _PAGE:
        raise OSError(f"the snapshot's header takes {len(page)} bytes, more than {_PAGE}")
    return page.ljust(_PAGE, b"\0")


def peek(path: Path) -> tuple[SnapshotInfo, int] | None:
    """(facts, dimension) from the header alone; None if there is no readable snapshot."""
    try:
        with path.open("rb") as file:
            header = _header(file.read(_PAGE))
        return SnapshotInfo(**header["facts"]), int(header["shapes"]["codes"][1])
    except (OSError, SnapshotError):
        return None


def load(path: Path, expected: SnapshotInfo, dimension: int) -> tuple[Segment, SnapshotInfo]:
    """Map a snapshot made for this store, embedder and dimension, and verify its checksums.

    Raises:
        SnapshotError: it is missing or damaged, belongs to another store, embedder or dimension,
            or is ahead of `expected`.
    """
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        header = _header(mapped[:_PAGE])
        facts = _matching_facts(header, expected)
        if _checksum(mapped) != header["crc32"]:
            raise SnapshotError(f"{path} is damaged (its checksum does not match)")
        return Segment(_arrays(mapped, header["shapes"], dimension)), facts
    except SnapshotError:
        raise
    except Exception as error:
        raise SnapshotError(f"{path} cannot be read: {error}") from error


def _header(page: bytes) -> Any:
    """The header, once its checksum has been verified."""
    checksum, _, text = page.rstrip(b"\0").removesuffix(b"\n").partition(b" ")
    try:
        if checksum != b"%08x" % zlib.crc32(text):
            raise SnapshotError("the snapshot's header is damaged")
        header = json.loads(text)
        if header["format"] != _FORMAT:
            raise SnapshotMismatchError("the snapshot was written by another version")
    except (ValueError, KeyError, TypeError) as error:
        raise SnapshotError("the snapshot's header cannot be read") from error
    return header


def _matching_facts(header: Any, expected: SnapshotInfo) -> SnapshotInfo:
    facts = SnapshotInfo(**header["facts"])
    if replace(facts, last_id=0, last_deletion=0) != replace(expected, last_id=0, last_deletion=0):
        raise SnapshotMismatchError("the snapshot was made for another store or embedder")
    if facts.last_id > expected.last_id or facts.last_deletion > expected.last_deletion:
        raise SnapshotMismatchError("the snapshot is ahead of the store")
    return facts


def _checksum(mapped: mmap.mmap) -> int:
    crc = 0
    with memoryview(mapped) as whole:
        for start in range(_PAGE, len(whole), _CHUNK):
            crc = zlib.crc32(whole[start : start + _CHUNK], crc)
    return crc


def _arrays(mapped: mmap.mmap, shapes: dict[str, list[int]], dimension: int) -> Arrays:
    arrays: dict[str, NDArray[Any]] = {}
    offset = _PAGE
    for name, dtype in _DTYPES.items():
        shape = shapes[name]
        count = int(np.prod(shape))
        arrays[name] = np.frombuffer(mapped, dtype, count, offset).reshape(shape)
        size = arrays[name].nbytes
        offset += size + -size % _ALIGNMENT
    if offset != len(mapped):
        raise SnapshotError("the snapshot is truncated")
    if arrays["codes"].shape[1] != dimension:
        raise SnapshotError("the snapshot's vectors have another dimension")
    return Arrays(**arrays)
