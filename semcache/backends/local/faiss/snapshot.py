"""A segment on disk: written beside its place and moved there in one step, mapped to be read.

The file begins with a page that holds one line of JSON under a checksum of its own; after it
lie the arrays. The header says for which store and embedder it was made and how far it had
followed the store; a CRC-32 covers the arrays. A snapshot is only a copy: where anything
does not fit, it is thrown away and made again from the store. It is not synced to disk for the
same reason: after a loss of power the checksum tells.
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

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from semcache.backends.local.faiss.merging import Plan
    from semcache.types import ChangeCursor

_FORMAT = "semcache-index-4"
_PAGE = 4096
_ALIGNED = 64
_PIECE = 1 << 24
_TYPES = {
    "scale": "<f4", "keys": "|u1", "first_list": "<i8", "first_centroid": "<i8",
    "made_for": "<i8", "centroids": "<f4", "coarse": "|u1", "first_row": "<i8", "ids": "<i8",
    "sorted_ids": "<i8", "middle": "|u1", "codes": "|u1", "signs": "|u1",
}  # fmt: skip
"""The arrays in the order of the file."""


class SnapshotError(Exception):
    """The snapshot cannot be used; the index must be made from the store."""


class OtherSnapshotError(SnapshotError):
    """It is sound, as far as was looked, but goes with another store, embedder or version."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What ties a snapshot to its store.

    Attributes:
        store_id: the store's own random id.
        fingerprint: the embedder whose vectors these are.
        last_id, last_deletion: how far the index had followed the store.
    """

    store_id: str
    fingerprint: str
    last_id: int = 0
    last_deletion: int = 0

    @classmethod
    def of(cls, position: ChangeCursor, fingerprint: str | None) -> Facts:
        """Those of an index that has followed a store up to a position."""
        return cls(position.store_id, fingerprint or "", position.last_id, position.last_deletion)


def write(path: Path, facts: Facts, plan: Plan) -> None:
    """Write a segment beside `path` and move it into place.

    Raises:
        OSError: it cannot be written; what was there before is there still.
    """
    # Not `tempfile`, whose files nobody else may read: the database's may be.
    name = f"{path}.{os.getpid()}.{os.urandom(4).hex()}.tmp"
    try:
        with open(name, "xb") as file:
            file.write(bytes(_PAGE))
            shapes, crc = {}, 0
            for array, shape, batched in _parts(plan):
                shapes[array] = shape
                for piece in batched:
                    crc = zlib.crc32(piece, crc)
                    file.write(piece)
            header = {"format": _FORMAT, "facts": asdict(facts), "crc32": crc, "shapes": shapes}
            file.seek(0)
            file.write(_first_page(header))
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise


def sweep(path: Path) -> None:
    """Delete what processes that were killed have left half written. Call while alone."""
    for left in path.parent.glob(f"{path.name}.*.tmp"):
        if not left.name.startswith(f"{path.name}.{os.getpid()}."):
            left.unlink(missing_ok=True)


def _parts(plan: Plan) -> Iterator[tuple[str, list[int], Iterator[bytes]]]:
    """(name, shape, bytes in pieces, the last filled up) of each array."""
    signs: list[NDArray[np.uint8]] = []

    def codes() -> Iterator[bytes]:
        for piece, own in plan.codes():
            signs.append(own)
            yield piece.tobytes()

    for name, dtype in _TYPES.items():
        if name == "codes":
            yield name, [plan.rows, plan.arrays.codes.shape[1]], _filled(codes())
        elif name == "signs":
            shape = [plan.rows, plan.arrays.signs.shape[1]]
            yield name, shape, _filled(piece.tobytes() for piece in signs)
        else:
            array = np.ascontiguousarray(getattr(plan.arrays, name), dtype)
            yield name, list(array.shape), _filled(iter([array.tobytes()]))


def _filled(batched: Iterator[bytes]) -> Iterator[bytes]:
    size = 0
    for piece in batched:
        size += len(piece)
        yield piece
    if size % _ALIGNED:
        yield bytes(_ALIGNED - size % _ALIGNED)


def _first_page(header: dict[str, Any]) -> bytes:
    line = json.dumps(header).encode()
    page = b"%08x %s\n" % (zlib.crc32(line), line)
    if len(page) > _PAGE:
        raise OSError(f"the snapshot's header takes {len(page)} bytes, there is room for {_PAGE}")
    return page.ljust(_PAGE, b"\0")


def peek(path: Path) -> tuple[Facts, int] | None:
    """(facts, dimension) of the snapshot there, by its header alone; None: there is none."""
    try:
        with path.open("rb") as file:
            header = _header(file.read(_PAGE))
        return Facts(**header["facts"]), int(header["shapes"]["codes"][1])
    except (OSError, SnapshotError):
        return None


def load(path: Path, expected: Facts, dimension: int) -> tuple[Segment, Facts]:
    """Map a snapshot made for this store, embedder and dimension, and check all of it.

    Raises:
        SnapshotError: it is missing, damaged, or was made for another, or is ahead of
            `expected`.
    """
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        header = _header(mapped[:_PAGE])
        facts = _checked(header, expected)
        if _checksum(mapped) != header["crc32"]:
            raise SnapshotError(f"{path} is damaged (its checksum does not match)")
        return Segment(_arrays(mapped, header["shapes"], dimension)), facts
    except SnapshotError:
        raise
    except Exception as error:
        raise SnapshotError(f"{path} cannot be read: {error}") from error


def _header(page: bytes) -> Any:
    """The header, if its own checksum says that it is whole."""
    checksum, _, text = page.rstrip(b"\0").removesuffix(b"\n").partition(b" ")
    try:
        if checksum != b"%08x" % zlib.crc32(text):
            raise SnapshotError("the snapshot's header is damaged")
        header = json.loads(text)
        if header["format"] != _FORMAT:
            raise OtherSnapshotError("the snapshot has another format")
    except (ValueError, KeyError, TypeError) as error:
        raise SnapshotError("the snapshot's header cannot be read") from error
    return header


def _checked(header: Any, expected: Facts) -> Facts:
    facts = Facts(**header["facts"])
    if replace(facts, last_id=0, last_deletion=0) != replace(expected, last_id=0, last_deletion=0):
        raise OtherSnapshotError("the snapshot was made for another store or embedder")
    if facts.last_id > expected.last_id or facts.last_deletion > expected.last_deletion:
        raise OtherSnapshotError("the snapshot is ahead of the store")
    return facts


def _checksum(mapped: mmap.mmap) -> int:
    crc = 0
    with memoryview(mapped) as whole:
        for start in range(_PAGE, len(whole), _PIECE):
            crc = zlib.crc32(whole[start : start + _PIECE], crc)
    return crc


def _arrays(mapped: mmap.mmap, shapes: dict[str, list[int]], dimension: int) -> Arrays:
    arrays: dict[str, NDArray[Any]] = {}
    at = _PAGE
    for name, dtype in _TYPES.items():
        shape = shapes[name]
        count = int(np.prod(shape))
        arrays[name] = np.frombuffer(mapped, dtype, count, at).reshape(shape)
        size = arrays[name].nbytes
        at += size + -size % _ALIGNED
    if at != len(mapped):
        raise SnapshotError("the snapshot is cut short")
    if arrays["codes"].shape[1] != dimension:
        raise SnapshotError("the snapshot has another dimension")
    return Arrays(**arrays)
