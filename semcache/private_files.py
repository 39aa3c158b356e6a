"""Creates files and directories that only their owner may read, whatever the process's umask.

Prompts and answers are in the database, leases, index, exports, backups, batch files and recorded
webhook deliveries. A copy has the permissions of the original.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import IO, Any

FILE_MODE = 0o600
GROUP_FILE_MODE = 0o660
_ACCESS = 0o777
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)


def make_directory(path: Path, file_mode: int = FILE_MODE) -> None:
    """Create a directory, and those above it that are missing; an existing one is left as it is.

    Args:
        file_mode: permissions of the files it will hold; whoever may read them may enter it.

    Raises:
        OSError: it cannot be created, or the path is a file.
    """
    if path.is_dir():
        return
    if path.parent != path:
        make_directory(path.parent, file_mode)
    mode = file_mode | (file_mode & 0o444) >> 2
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        if not path.is_dir():
            raise
        return
    os.chmod(path, mode)


def create(path: Path, mode: int = FILE_MODE) -> bool:
    """Create an empty file with exactly these permissions; False if there is a file already.

    Raises:
        OSError: it cannot be created. A symbolic link is never followed.
    """
    try:
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | _NO_FOLLOW, mode)
    except FileExistsError:
        if path.is_symlink() and not path.exists():
            raise
        return False
    try:
        _set_mode(file, mode)
    finally:
        os.close(file)
    return True


def open_to_write(path: Path, flags: int = os.O_TRUNC, mode: int = FILE_MODE) -> int:
    """Open a file for writing; a missing one is created, by default for its owner only.

    Args:
        flags: in addition to O_WRONLY and O_CREAT; with O_RDWR, the file can also be read.

    Returns:
        The file descriptor.

    Raises:
        OSError: it cannot be opened, or is a symbolic link.
    """
    access = 0 if flags & os.O_RDWR else os.O_WRONLY
    return os.open(path, access | os.O_CREAT | _NO_FOLLOW | flags, mode)


def text_to_write(path: Path) -> IO[str]:
    """Open a text file for writing, as `open_to_write` does."""
    return os.fdopen(open_to_write(path), "w", encoding="utf-8")


def mode_of(path: Path) -> int:
    """The permissions of a file, for copies of it; those of a new file if it is missing."""
    try:
        return stat.S_IMODE(path.stat().st_mode) & _ACCESS
    except OSError:
        return FILE_MODE


def opener(mode: int) -> Any:
    """An `opener` for `open` that creates files with these permissions.

    Source: https://docs.python.org/3/library/functions.html#open
    """

    def open_(name: str, flags: int) -> int:
        file = os.open(name, flags | _NO_FOLLOW, mode)
        if flags & os.O_EXCL:
            _set_mode(file, mode)
        return file

    return open_


def warnings_about(directory: Path, database: Path) -> list[str]:
    """Messages that say who else on this machine can read or change a cache; [] if nobody can."""
    if os.name != "posix":
        return []
    try:
        outer = directory.stat()
        inner = database.stat()
    except OSError:
        return []
    found = []
    user = os.geteuid()
    if outer.st_uid not in (user, 0):
        found.append(f"its directory belongs to another user (uid {outer.st_uid})")
    if outer.st_mode & stat.S_IWOTH and not outer.st_mode & stat.S_ISVTX:
        found.append("every user can replace its files")
    enters = bool(outer.st_mode & stat.S_IXOTH)
    changes = bool(inner.st_mode & stat.S_IWOTH)
    reads = bool(inner.st_mode & stat.S_IROTH) and inner.st_uid == user
    if enters and (changes or reads):
        can = "change" if changes else "read"
        found.append(f"every user can {can} its questions and answers")
    return found


def changeable_by_others(path: Path) -> str | None:
    """Why other users can change a directory or a file in it, in words; None if they cannot."""
    if os.name != "posix":
        return None
    for part in (path.parent, path, *path.iterdir()):
        found = part.stat()
        if found.st_uid not in (os.geteuid(), 0):
            return f"{part} belongs to another user (uid {found.st_uid})"
        if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
            return f"every user can write to {part}"
    return None


def _set_mode(file: int, mode: int) -> None:
    if hasattr(os, "fchmod"):
        os.fchmod(file, mode)
