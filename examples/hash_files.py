"""Hash every regular file below some paths on a dromon pool; print lines as sha256sum does.

    python hash_files.py [--algorithm NAME] [--workers N] PATH...

What it prints can be checked with ``sha256sum --check`` (or the program of another algorithm). The
lines come in the order in which the files are done; ``sort -k 2`` puts them in order. Symbolic
links below a path are not followed. What cannot be read is reported on stderr, and the exit status
is then 1.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING

import trio

import dromon

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager

# Those whose digest has a fixed length, and which a program of coreutils can check.
ALGORITHMS = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512")


def main() -> int:
    parser = argparse.ArgumentParser(description="Hash every regular file below some paths.")
    parser.add_argument("paths", metavar="PATH", nargs="+", help="a folder or a file")
    parser.add_argument("--algorithm", choices=ALGORITHMS, default="sha256")
    parser.add_argument("--workers", metavar="N", type=int, help="default: one per usable CPU")
    args = parser.parse_args()
    # When the reader of a pipe goes away (`| head`), this program ends as others do.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        opening = dromon.open_pool(args.workers)
    except ValueError as error:
        parser.error(f"argument --workers: {error}")
    # Here it is as it should be that all workers are busy while files wait for them.
    logging.getLogger("dromon").addFilter(lambda record: "saturated" not in record.msg)
    status = 130
    try:
        unreadable = trio.run(hash_all, args.paths, args.algorithm, opening)
        status = 1 if unreadable else 0
    except* KeyboardInterrupt:
        pass
    return status


async def hash_all(
    paths: Sequence[str], algorithm: str, opening: AbstractAsyncContextManager[dromon.Pool]
) -> int:
    """Print the digest of every file below the paths; return how much could not be read."""
    unreadable = 0

    def report(path: str, error: OSError) -> None:
        nonlocal unreadable
        unreadable += 1
        print(f"{path}: {error.strerror}", file=sys.stderr)

    async def hash_received() -> None:
        async for path in receiver:
            try:
                digest = await pool.run_sync(hash_file, path, algorithm)
            except OSError as error:
                report(path, error)
            else:
                print_line(digest, path)

    async with opening as pool, trio.open_nursery() as nursery:
        # The channel holds nothing, so as many files are under way as there are tasks: two per
        # worker, so that a worker which is done finds its next file in the pool's queue.
        sender, receiver = trio.open_memory_channel[str](0)
        for _ in range(2 * len(pool.statistics().workers)):
            nursery.start_soon(hash_received)
        async with sender:
            folders = list(reversed(paths))
            while folders:
                path = folders.pop()
                try:
                    # Reading a folder may take long, too: also that is done on a worker.
                    files, below = await pool.run_sync(look_at, path)
                except OSError as error:
                    report(path, error)
                    continue
                folders += reversed(below)
                for file in files:
                    await sender.send(file)
    return unreadable


def look_at(path: str) -> tuple[list[str], list[str]]:
    """Return the files and the folders directly below a path; of a file, itself."""
    if not os.path.isdir(path):
        return [path], []
    files, folders = [], []
    with os.scandir(path) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            elif entry.is_file(follow_symlinks=False):
                files.append(entry.path)
    return files, folders


def hash_file(path: str, algorithm: str) -> str:
    """Return the digest of one file. Reading and hashing let go of the GIL."""
    with open(path, "rb", buffering=0) as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def print_line(digest: str, path: str) -> None:
    """Print a line that ``sha256sum --check`` reads; it marks escaped names by a backslash."""
    escaped = path.replace("\\", r"\\").replace("\n", r"\n").replace("\r", r"\r")
    mark = "" if escaped == path else "\\"
    sys.stdout.buffer.write(os.fsencode(f"{mark}{digest}  {escaped}\n"))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
