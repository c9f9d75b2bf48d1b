"""Upload files to hash_server.py and print their digests as sha256sum does.

    python hash_client.py [--host NAME] --port N FILE...

What cannot be read or is too large is reported on stderr, and the exit status is then 1.
"""

from __future__ import annotations

import argparse
import errno
import os
import socket
import stat
import struct
import sys
from typing import IO

LENGTH = struct.Struct(">Q")


class RefusedError(Exception):
    """The server does not want this upload, or the next."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Have files hashed by hash_server.py.")
    parser.add_argument("files", metavar="FILE", nargs="+")
    parser.add_argument("--host", metavar="NAME", default="127.0.0.1")
    parser.add_argument("--port", metavar="N", type=int, required=True)
    args = parser.parse_args()
    try:
        return hash_files(args.host, args.port, args.files)
    except (OSError, RefusedError) as error:
        print(f"{args.host}:{args.port}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def hash_files(host: str, port: int, paths: list[str]) -> int:
    """Upload the files over one connection, one after the other."""
    status = 0
    with (
        socket.create_connection((host, port)) as connection,
        connection.makefile("rb") as answers,
    ):
        limit = int(receive_line(answers).removeprefix("sha256 "))
        for path in paths:
            try:
                file, length = open_suitable(path, limit)
            except OSError as error:
                print(f"{path}: {error.strerror}", file=sys.stderr)
                status = 1
                continue
            with file:
                print(f"{upload(connection, answers, file, length)}  {path}", flush=True)
    return status


def open_suitable(path: str, limit: int) -> tuple[IO[bytes], int]:
    """Open a file that the server will take; also return its length."""
    # Looked at first, since opening a named pipe would wait.
    about = os.stat(path)
    if not stat.S_ISREG(about.st_mode):
        raise OSError(errno.EINVAL, "Not a regular file")
    if about.st_size > limit:
        raise OSError(errno.EFBIG, f"Larger than the server's limit of {limit} bytes")
    return open(path, "rb"), about.st_size


def upload(connection: socket.socket, answers: IO[bytes], file: IO[bytes], length: int) -> str:
    """Send one file and return the answer to it."""
    connection.sendall(LENGTH.pack(length))
    if length and connection.sendfile(file, count=length) < length:
        raise RefusedError(f"{file.name} became shorter while it was sent")
    return receive_line(answers)


def receive_line(answers: IO[bytes]) -> str:
    line = answers.readline().decode()
    if not line.endswith("\n"):
        raise RefusedError("the server has ended the connection")
    if line.startswith("error: "):
        raise RefusedError(line[len("error: ") :].strip())
    return line.strip()


if __name__ == "__main__":
    sys.exit(main())
