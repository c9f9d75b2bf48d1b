"""Find files with the same content below some paths: an asyncio program with a dromon executor.

    python find_duplicates.py [--workers N] PATH...

Prints each group of files that are the same. Only files of a size that others have, too, are read.
Empty files and symbolic links are passed over, and several names of one file count as one. What
cannot be read is reported at the end on stderr, and the exit status is then 1.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import signal
import stat
import sys
import threading
from collections import defaultdict
from typing import TYPE_CHECKING

import dromon

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

IN_FLIGHT = 64  # files that are being hashed, or wait for a worker
PART = 1 << 20  # bytes that are hashed until a worker looks whether it has to stop


def main() -> int:
    parser = argparse.ArgumentParser(description="Find files with the same content.")
    parser.add_argument("paths", metavar="PATH", nargs="+", help="a folder or a file")
    parser.add_argument("--workers", metavar="N", type=int, help="default: that of dromon.Executor")
    args = parser.parse_args()
    # When the reader of a pipe goes away (`| head`), this program ends as others do.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        executor = dromon.Executor(args.workers)
    except ValueError as error:
        parser.error(f"argument --workers: {error}")
    try:
        return asyncio.run(find_duplicates(args.paths, executor))
    except KeyboardInterrupt:
        return 130


async def find_duplicates(paths: Sequence[str], executor: dromon.Executor) -> int:
    # From here on asyncio.to_thread, and whatever else in asyncio needs a thread, uses dromon's
    # workers. asyncio.run shuts the executor down at the end.
    asyncio.get_running_loop().set_default_executor(executor)
    search = Search()
    try:
        suspects = await asyncio.to_thread(search.list_suspects, paths)
        print(f"comparing {len(suspects)} files", file=sys.stderr, flush=True)
        groups = await search.group_by_content(suspects)
    finally:
        # Ctrl-C cancels this task. What waits for a worker is then withdrawn, but what runs has to
        # be told, since asyncio waits for it.
        search.stopping.set()
    for (size, _), files in sorted(groups.items(), reverse=True):
        print(f"{len(files)} files of {size} bytes:", *sorted(files), sep="\n  ")
    for problem in sorted(search.problems):
        print(problem, file=sys.stderr)
    return 1 if search.problems else 0


class Search:
    def __init__(self) -> None:
        self.problems: list[str] = []
        self.stopping = threading.Event()

    def list_suspects(self, paths: Iterable[str]) -> list[str]:
        """Return the files below the paths that are as large as others, the largest first."""
        by_size = defaultdict[int, dict[tuple[int, int], str]](dict)
        for path in self._walk(paths):
            try:
                about = os.lstat(path)
            except OSError as error:
                self._note(error)
                continue
            if stat.S_ISREG(about.st_mode) and about.st_size:
                by_size[about.st_size][about.st_dev, about.st_ino] = path
        alike = [files.values() for _, files in sorted(by_size.items()) if len(files) > 1]
        return [file for files in reversed(alike) for file in files]

    def _walk(self, paths: Iterable[str]) -> Iterator[str]:
        for path in paths:
            if not os.path.isdir(path):
                yield path
                continue
            for folder, _, files in os.walk(path, onerror=self._note):
                if self.stopping.is_set():
                    return
                yield from (os.path.join(folder, file) for file in files)

    async def group_by_content(self, files: Iterable[str]) -> dict[tuple[int, bytes], list[str]]:
        """Return the files that have the same content as others, by their size and digest."""
        groups = defaultdict[tuple[int, bytes], list[str]](list)
        waiting = iter(files)

        async def hash_waiting() -> None:
            for file in waiting:
                try:
                    content = await asyncio.to_thread(self._hash_file, file)
                except OSError as error:
                    self._note(error)
                else:
                    groups[content].append(file)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(IN_FLIGHT):
                tasks.create_task(hash_waiting())
        return {content: alike for content, alike in groups.items() if len(alike) > 1}

    def _hash_file(self, path: str) -> tuple[int, bytes]:
        """Return the size and the digest of a file. Reading and hashing let go of the GIL."""
        digest, size = hashlib.sha256(), 0
        part = memoryview(bytearray(PART))
        with open(path, "rb", buffering=0) as file:
            while (read := file.readinto(part)) and not self.stopping.is_set():
                digest.update(part[:read])
                size += read
        return size, digest.digest()

    def _note(self, error: OSError) -> None:
        self.problems.append(f"{error.filename}: {error.strerror}")


if __name__ == "__main__":
    sys.exit(main())
