"""The programs in examples/, and the first program of the README, run as a user runs them."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from compiler import needs_compiler
from programs import EXAMPLES, ROOT, run_program


def lines_of_sha256sum(*files: Path) -> list[str]:
    return sorted(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file}" for file in files)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """A few files in two folders: an empty one, and one of many megabytes among them."""
    below = tmp_path / "below"
    below.mkdir()
    contents = {
        tmp_path / "empty": b"",
        tmp_path / "small": b"dromon\n",
        below / "large": bytes(range(256)) * 50_000,
        below / "a name with spaces": b"0",
    }
    for file, content in contents.items():
        file.write_bytes(content)
    return list(contents)


HASH_FILES = EXAMPLES / "hash_files.py"


def test_hash_files_prints_what_sha256sum_prints(tmp_path: Path, files: list[Path]) -> None:
    result = run_program(HASH_FILES, tmp_path)
    assert sorted(result.stdout.splitlines()) == lines_of_sha256sum(*files)
    assert result.stderr == ""


def test_hash_files_keeps_to_the_algorithm_and_the_workers_that_it_is_told(
    tmp_path: Path, files: list[Path]
) -> None:
    result = run_program(HASH_FILES, "--algorithm", "md5", "--workers", "1", files[1])
    assert result.stdout == f"{hashlib.md5(files[1].read_bytes()).hexdigest()}  {files[1]}\n"


def test_hash_files_takes_several_paths_and_leaves_symbolic_links_below_them_alone(
    tmp_path: Path, files: list[Path]
) -> None:
    (tmp_path / "below" / "loop").symlink_to(tmp_path)
    (tmp_path / "below" / "link").symlink_to(tmp_path / "small")
    result = run_program(HASH_FILES, tmp_path / "below", tmp_path / "small")
    assert sorted(result.stdout.splitlines()) == lines_of_sha256sum(*files[1:])


def test_hash_files_escapes_names_as_sha256sum_does(tmp_path: Path) -> None:
    (tmp_path / "two\nlines\\").write_bytes(b"")
    (tmp_path / os.fsdecode(b"\xff")).write_bytes(b"")
    result = run_program(HASH_FILES, tmp_path)
    digest = hashlib.sha256().hexdigest()
    assert sorted(result.stdout.splitlines()) == sorted(
        [f"\\{digest}  {tmp_path}/two\\nlines\\\\", f"{digest}  {tmp_path}/\udcff"]
    )


def test_hash_files_reports_what_it_cannot_read_and_does_the_rest(
    tmp_path: Path, files: list[Path]
) -> None:
    missing = tmp_path / "missing"
    result = run_program(HASH_FILES, missing, tmp_path, status=1)
    assert sorted(result.stdout.splitlines()) == lines_of_sha256sum(*files)
    assert result.stderr == f"{missing}: No such file or directory\n"


def test_hash_files_refuses_a_number_of_workers_that_makes_no_sense(tmp_path: Path) -> None:
    result = run_program(HASH_FILES, "--workers", "0", tmp_path, status=2)
    assert result.stderr.endswith("workers must be from 1 to 1024, not 0\n")


def test_hash_files_ends_quietly_when_interrupted(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with subprocess.Popen([sys.executable, HASH_FILES, fifo], stderr=subprocess.PIPE) as process:
        # Opening it waits until the program has opened it for reading, on a worker.
        with fifo.open("wb"):
            process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (130, b"")


COUNT_PRIMES = EXAMPLES / "native_tasks" / "count_primes.py"


@needs_compiler
def test_count_primes_counts_the_same_in_three_ways_and_prints_their_times() -> None:
    result = run_program(COUNT_PRIMES, "--workers", "2", "--below", "10000")
    first, second, *ways = result.stdout.splitlines()
    assert first == "1229 primes below 10000, counted by 1000 tasks on 2 workers;"
    assert second == f"this process may use {len(os.sched_getaffinity(0))} CPUs."
    names = [re.split(r" {2,}", line)[0] for line in ways]
    assert names == ["one after the other", "pool.run_native", "libdromon, in C alone"]
    for line in ways:
        assert re.search(r" \d+\.\d{3} s +\d+\.\d\d times as fast$", line)
    assert result.stderr == ""


@needs_compiler
@pytest.mark.parametrize("option", ["--workers", "--below"])
def test_count_primes_refuses_numbers_that_make_no_sense(option: str) -> None:
    result = run_program(COUNT_PRIMES, option, "0", status=2)
    assert f"error: argument {option}: " in result.stderr


def test_the_first_program_of_the_readme_prints_what_sha256sum_prints(
    tmp_path: Path, files: list[Path]
) -> None:
    programs = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)
    program = tmp_path / "program.py"
    program.write_text(programs[0])
    result = run_program(program, *files)
    assert sorted(result.stdout.splitlines()) == lines_of_sha256sum(*files)
