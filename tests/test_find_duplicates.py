"""examples/asyncio_executor, run as a user runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from programs import EXAMPLES, run_program

if TYPE_CHECKING:
    from pathlib import Path

FIND_DUPLICATES = EXAMPLES / "asyncio_executor" / "find_duplicates.py"


def fill(folder: Path, contents: dict[str, bytes]) -> None:
    for name, content in contents.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)


def test_files_with_the_same_content_are_printed_together(tmp_path: Path) -> None:
    large = bytes(range(256)) * 10_000
    fill(
        tmp_path,
        {
            "one": b"same",
            "below/two": b"same",
            "three": b"same",
            "other": b"else",
            "alone": b"of its own size",
            "large": large,
            "below/large": large,
            "nearly": large[:-1] + b"0",
            "empty": b"",
            "below/empty": b"",
        },
    )
    result = run_program(FIND_DUPLICATES, tmp_path)
    assert result.stdout.splitlines() == [
        "2 files of 2560000 bytes:",
        f"  {tmp_path}/below/large",
        f"  {tmp_path}/large",
        "3 files of 4 bytes:",
        f"  {tmp_path}/below/two",
        f"  {tmp_path}/one",
        f"  {tmp_path}/three",
    ]
    assert result.stderr == "comparing 7 files\n"


def test_many_files_are_compared_by_few_workers(tmp_path: Path) -> None:
    fill(tmp_path, {str(number): str(number % 100).encode() for number in range(1000)})
    result = run_program(FIND_DUPLICATES, "--workers", "2", tmp_path)
    assert result.stdout.count("10 files of 1 bytes:\n") == 10
    assert result.stdout.count("10 files of 2 bytes:\n") == 90
    assert result.stderr == "comparing 1000 files\n"


def test_links_are_no_duplicates(tmp_path: Path) -> None:
    fill(tmp_path, {"file": b"content"})
    (tmp_path / "hard").hardlink_to(tmp_path / "file")
    (tmp_path / "soft").symlink_to("file")
    (tmp_path / "loop").symlink_to(tmp_path)
    result = run_program(FIND_DUPLICATES, tmp_path, tmp_path / "file")
    assert (result.stdout, result.stderr) == ("", "comparing 0 files\n")


def test_what_cannot_be_read_is_reported_and_the_rest_is_compared(tmp_path: Path) -> None:
    fill(tmp_path, {"one": b"same", "two": b"same"})
    missing = tmp_path / "missing"
    result = run_program(FIND_DUPLICATES, tmp_path, missing, status=1)
    assert result.stdout == f"2 files of 4 bytes:\n  {tmp_path}/one\n  {tmp_path}/two\n"
    problems = result.stderr.splitlines()[1:]
    assert problems == [f"{missing}: No such file or directory"]


def test_it_refuses_a_number_of_workers_that_makes_no_sense(tmp_path: Path) -> None:
    result = run_program(FIND_DUPLICATES, "--workers", "0", tmp_path, status=2)
    assert "error: argument --workers: " in result.stderr


def test_it_stops_in_the_middle_of_files_when_interrupted(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        # Sparse: reading them takes no disk, but minutes.
        with (tmp_path / name).open("wb") as file:
            os.truncate(file.fileno(), 1 << 40)
    with subprocess.Popen(
        [sys.executable, "-X", "dev", FIND_DUPLICATES, "--workers", "2", tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "comparing 3 files\n"
        process.send_signal(signal.SIGINT)
        printed = process.communicate(timeout=60)
    assert (process.returncode, *printed) == (130, "", "")
