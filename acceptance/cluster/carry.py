"""A folder carried from one host to another in pieces, so that neither holds more than one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from acceptance.errors import ObservationError

PIECE = 4 << 20  # bytes of all files that go at once


@dataclass(frozen=True)
class Mark:
    """Where to go on. at: number of the file, in order of its path. offset: bytes of it."""

    at: int = 0
    offset: int = 0


@dataclass(frozen=True)
class Piece:
    """Bytes that follow those before. parts: path below the folder, and what comes next of that
    file. after: where to go on; None at the end."""

    parts: tuple[tuple[str, bytes], ...]
    after: Mark | None


def piece(folder: Path, mark: Mark, most: int = PIECE) -> Piece:
    """What follows the mark, of a folder that nobody writes. Links are left out: they mean nothing
    elsewhere. most: bytes."""
    files = _files(folder)
    parts: list[tuple[str, bytes]] = []
    at, offset, left = mark.at, mark.offset, most
    while at < len(files):
        path = files[at]
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(left)
            whole = file.tell() >= os.fstat(file.fileno()).st_size
        parts.append((path.relative_to(folder).as_posix(), data))
        left -= len(data)
        if not whole:
            return Piece(tuple(parts), Mark(at, offset + len(data)))
        at, offset = at + 1, 0
        if not left:
            break
    return Piece(tuple(parts), Mark(at) if at < len(files) else None)


def receive(received: Piece, folder: Path) -> int:
    """Appends a piece to what is in the folder already; bytes. Raises ObservationError for a path
    that would lie elsewhere: the other host is not trusted with this one."""
    for name, data in received.parts:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise ObservationError(f"a file that would lie outside of {folder}: {name!r}")
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab") as out:
            out.write(data)
    return sum(len(data) for _, data in received.parts)


def _files(folder: Path) -> list[Path]:
    found = []
    for parent, folders, names in os.walk(folder):  # does not follow links
        folders.sort()
        found += [Path(parent, name) for name in names]
    return sorted(path for path in found if path.is_file() and not path.is_symlink())
