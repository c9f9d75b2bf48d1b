"""The files of the demo, and the work on them that lets go of the GIL."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections import Counter
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ._bar import Bar

# Bytes read at once, so that a large file needs no more memory than a small one.
CHUNK: Final = 1 << 20


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

    Attributes:
      files (int): How many were done.
      read (int): Their bytes.
      counts (Counter[str]): What was counted or added up: the same in whatever order the files were
          done.
      unreadable (tuple[Unreadable, ...]): The files that failed.
    """

    files: int
    read: int
    counts: Counter[str]
    unreadable: tuple[Unreadable, ...] = ()


def crunch(path: str) -> Work:
    """Read, compress and hash one file.

    It does not raise if the file cannot be read: the result says so.
    """
    read = compressed = 0
    compressor, hasher = zlib.compressobj(), hashlib.sha256()
    try:
        for chunk in _chunks(path):
            read += len(chunk)
            compressed += len(compressor.compress(chunk))
            hasher.update(chunk)
    except OSError as error:
        return unreadable(path, error)
    compressed += len(compressor.flush())
    # So few bytes of each digest that readers of JSON who know no long integers keep the sum.
    digest = int.from_bytes(hasher.digest()[:4], "big")
    return Work(1, read, Counter(compressed_bytes=compressed, sha256_sum=digest))


def unreadable(path: str, error: OSError) -> Work:
    """Return what comes of a file that cannot be read."""
    return Work(0, 0, Counter(), (_unreadable(path, error),))


def total(works: Iterable[Work]) -> Work:
    """Add up what came of several files."""
    files = read = 0
    counts: Counter[str] = Counter()
    failures: list[Unreadable] = []
    for work in works:
        files += work.files
        read += work.read
        counts.update(work.counts)
        failures += work.unreadable
    return Work(files, read, counts, tuple(failures))


def survey(top: str, bar: Bar, skip: str | None = None) -> Tree:
    """Find every regular file at or below a path, but for the folder `skip`; read each once.

    Symbolic links below the path are not followed: no file counts twice, and none from elsewhere.
    """
    files: list[File] = []
    unreadable: list[Unreadable] = []
    paths = [top] if os.path.isfile(top) else list(_regular_files(top, skip, unreadable))
    bar.start("reading each file once", len(paths))
    for path in paths:
        try:
            files.append(File(path, sum(map(len, _chunks(path)))))
        except OSError as error:
            unreadable.append(_unreadable(path, error))
        bar.advance(1)
    files.sort(key=lambda file: (-file.size, file.path))
    return Tree(files, unreadable)


def _regular_files(top: str, skip: str | None, unreadable: list[Unreadable]) -> Iterator[str]:
    folders = [top]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.path == skip:
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        yield entry.path
        except OSError as error:
            unreadable.append(_unreadable(folder, error))


def _chunks(path: str) -> Iterator[bytes]:
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _unreadable(path: str, error: OSError) -> Unreadable:
    return Unreadable(path, error.strerror or str(error))
