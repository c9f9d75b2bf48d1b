"""The files of the demo, and what is done to each of them."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence

import attrs

from ._bar import Bar

CHUNK = 1 << 16
"""Bytes read at once, so that a large file needs no more memory than a small one."""


@attrs.frozen
class Unreadable:
    """A file or folder that could not be read."""

    path: str
    reason: str


@attrs.frozen
class File:
    """A regular file that could be read, and its size."""

    path: str
    size: int


@attrs.frozen
class Tree:
    """What lies below a path: the files that can be read, the largest first, and the rest."""

    files: Sequence[File]
    unreadable: Sequence[Unreadable]


@attrs.frozen
class Work:
    """What came of some files.

    The digest is the sum of the files' SHA-256 digests as numbers, modulo 2**256: the same
    whatever the order in which the files were done.
    """

    files: int
    read: int
    compressed: int
    digest: int
    unreadable: tuple[Unreadable, ...] = ()


def crunch(path: str) -> Work:
    """Read, compress and hash one file: the one callable that every way runs.

    Args:
        path: The file. If it cannot be read, the result says so.
    """
    read = compressed = 0
    compressor, hasher = zlib.compressobj(), hashlib.sha256()
    try:
        with open(path, "rb", buffering=0) as file:
            while chunk := file.read(CHUNK):
                read += len(chunk)
                compressed += len(compressor.compress(chunk))
                hasher.update(chunk)
    except OSError as error:
        return Work(0, 0, 0, 0, (_unreadable(path, error),))
    compressed += len(compressor.flush())
    return Work(1, read, compressed, int.from_bytes(hasher.digest(), "big"))


def total(works: Iterable[Work]) -> Work:
    """Add up what came of several files."""
    files = read = compressed = digest = 0
    unreadable: list[Unreadable] = []
    for work in works:
        files += work.files
        read += work.read
        compressed += work.compressed
        digest += work.digest
        unreadable += work.unreadable
    return Work(files, read, compressed, digest % 2**256, tuple(unreadable))


def survey(top: str, bar: Bar) -> Tree:
    """Find every regular file at or below a path, and read each of them once.

    Symbolic links below the path are not followed.

    Args:
        top: A file or a folder.
        bar: Shows how far the reading is.
    """
    files: list[File] = []
    unreadable: list[Unreadable] = []
    paths = [top] if os.path.isfile(top) else list(_regular_files(top, unreadable))
    bar.start("reading every file once", len(paths))
    for path in paths:
        try:
            files.append(File(path, _read(path)))
        except OSError as error:
            unreadable.append(_unreadable(path, error))
        bar.advance(1)
    files.sort(key=lambda file: (-file.size, file.path))
    return Tree(files, unreadable)


def _regular_files(top: str, unreadable: list[Unreadable]) -> Iterator[str]:
    folders = [top]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        yield entry.path
        except OSError as error:
            unreadable.append(_unreadable(folder, error))


def _read(path: str) -> int:
    size = 0
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(CHUNK):
            size += len(chunk)
    return size


def _unreadable(path: str, error: OSError) -> Unreadable:
    return Unreadable(path, error.strerror or str(error))
