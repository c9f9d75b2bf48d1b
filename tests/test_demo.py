"""``python -m dromon`` and its command ``demo``, as a user runs them."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import pty
import subprocess
import sys
import sysconfig
from typing import TYPE_CHECKING, Any

import pytest

import dromon
from dromon._demo._files import CHUNK, crunch
from dromon._demo._report import _percentile_ms
from dromon._demo._tokens import count_tokens

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dromon._demo._files import Work

WATCHED = ["serial", "trio.to_thread", "dromon pool"]

CAN_ISOLATE = sys.version_info >= (3, 12)
needs_isolation = pytest.mark.skipif(
    not CAN_ISOLATE, reason="before Python 3.12 all interpreters share one GIL"
)

CONTENTS = [b"", b"one line\n", bytes(range(256)) * 40, b"more than a chunk " * (CHUNK // 9)]

# Only a guard against a hang.
TIMEOUT = 120


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python, with nothing in its environment that asks for colours."""
    colours = {"FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS"}
    return subprocess.run(
        [sys.executable, *arguments],
        env={name: value for name, value in os.environ.items() if name not in colours},
        check=False,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )


def demo(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return python("-m", "dromon", "demo", "--workers=2", *map(str, arguments))


def demo_json(*arguments: str | Path) -> dict[str, Any]:
    process = demo("--json", *arguments)
    assert process.returncode == 0, process.stderr
    report: dict[str, Any] = json.loads(process.stdout)
    return report


def make_unreadable(folder: Path) -> None:
    """Make a file that its folder lists, but whose path is too long to be opened, even by root."""
    name, path = "f" * 255, str(folder)
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    # The folders' own paths still fit into PATH_MAX: 4095 bytes, and one that ends them.
    while (room := 4095 - len(path) - len("/")) > 0:
        step = "d" * min(room, 255)
        os.mkdir(step, dir_fd=at)
        below = os.open(step, os.O_RDONLY | os.O_DIRECTORY, dir_fd=at)
        os.close(at)
        at, path = below, f"{path}/{step}"
    os.close(os.open(name, os.O_WRONLY | os.O_CREAT, dir_fd=at))
    os.close(at)


def make_tree(top: Path) -> Path:
    """Put the files of `CONTENTS` at several depths, under names that are hard to print."""
    (top / "one" / "two").mkdir(parents=True)
    names = [b"empty", b"one/a line.txt", b"one/two/\xff\n", b"one/two/[red]long"]
    for name, content in zip(names, CONTENTS, strict=True):
        (top / os.fsdecode(name)).write_bytes(content)
    return top


def make_sources(top: Path) -> Path:
    """Put two files of Python there, one that only claims to be, and one that does not."""
    (top / "one.py").write_text("answer = 42  # of all\n")
    (top / "two.py").write_text("print(answer)\n")
    (top / "broken.py").write_text("print(((\n")
    (top / "three.txt").write_text("answer = 43\n")
    return top


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("demo") / "[bold]tree")


@pytest.fixture(scope="module")
def report(tree: Path) -> dict[str, Any]:
    return demo_json(tree)


@pytest.fixture(scope="module")
def printed(tree: Path) -> str:
    process = demo(tree)
    assert process.returncode == 0
    assert process.stderr == ""
    return process.stdout


def test_the_totals_are_those_of_the_files(report: dict[str, Any]) -> None:
    digests = sum(int(hashlib.sha256(content).hexdigest()[:8], 16) for content in CONTENTS)
    (comparison,) = report["workloads"]
    rows = comparison["rows"]
    assert comparison["workload"] == "compress and hash"
    assert [row["way"] for row in rows] == [*WATCHED, "ceiling: 2 bare forks"]
    for row in rows:
        assert row["files"] == len(CONTENTS)
        assert row["bytes"] == sum(map(len, CONTENTS))
        assert row["counts"]["sha256_sum"] == digests


def test_all_ways_come_to_the_same_result(report: dict[str, Any]) -> None:
    (comparison,) = report["workloads"]
    first, *others = (row["counts"] for row in comparison["rows"])
    assert all(other == first for other in others)
    assert comparison["agree"] is True


def check_tokenized(report: dict[str, Any]) -> None:
    hashing, tokenizing = report["workloads"]
    assert (hashing["skipped"], tokenizing["skipped"]) == (0, 1)
    assert tokenizing["agree"] is True
    for row in tokenizing["rows"]:
        assert row["files"] == 3
        assert row["bytes"] == 22 + 14 + 9
        assert row["counts"]["NAME"] == 3
        assert row["counts"]["NUMBER"] == 1
        assert row["counts"]["COMMENT"] == 1
        assert row["counts"]["untokenized"] == 1


def test_files_of_python_are_tokenized_and_others_counted(tmp_path: Path) -> None:
    report = demo_json(make_sources(tmp_path))
    assert report["isolation"] == "thread"
    check_tokenized(report)


@needs_isolation
@pytest.mark.parametrize("isolation", ["interpreter", "auto"])
def test_workers_with_an_interpreter_of_their_own_come_to_the_same(
    tmp_path: Path, isolation: str
) -> None:
    report = demo_json(make_sources(tmp_path), f"--isolation={isolation}")
    assert report["isolation"] == isolation
    check_tokenized(report)


@pytest.mark.skipif(CAN_ISOLATE, reason="this Python can")
def test_a_python_whose_interpreters_share_a_gil_is_an_error(tmp_path: Path) -> None:
    process = demo(make_sources(tmp_path), "--isolation=interpreter")
    assert process.returncode == 2
    assert "argument --isolation: " in process.stderr
    assert process.stdout == ""


def test_an_isolation_that_is_none_is_an_error(tmp_path: Path) -> None:
    process = demo(tmp_path, "--isolation=cell")
    assert process.returncode == 2
    assert "argument --isolation: " in process.stderr


def test_what_an_isolated_worker_imports_of_the_demo_is_light() -> None:
    script = """
import sys, types
sys.modules["dromon"] = types.ModuleType("dromon")
sys.modules["dromon"].__path__ = [sys.argv[1]]
import dromon._demo._tokens
print(*sorted(name for name in sys.modules if name.startswith("dromon.")))
assert not {"trio", "cffi", "_cffi_backend", "rich"} & sys.modules.keys()
"""
    process = python("-c", script, os.path.dirname(dromon.__file__))
    assert process.stdout == "dromon._demo dromon._demo._files dromon._demo._tokens\n"
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize(
    "source",
    [b"(", b'"""', b"if x:\n  y\n z\n", b"x = '\xff'\n", b"# coding: x\n"],
)
def test_a_file_that_does_not_tokenize_is_counted(tmp_path: Path, source: bytes) -> None:
    path = tmp_path / "file.py"
    path.write_bytes(source)
    work = count_tokens(str(path))
    assert (work.files, work.read, work.counts) == (1, len(source), {"untokenized": 1})


def test_the_lateness_of_the_loop_is_known_for_each_way_but_the_ceiling(
    report: dict[str, Any],
) -> None:
    *watched, ceiling = report["workloads"][0]["rows"]
    for percentile in ("loop_late_p50_ms", "loop_late_p99_ms"):
        assert all(isinstance(row[percentile], float) for row in watched)
        assert ceiling[percentile] is None


def test_the_report_tells_what_it_was_measured_on(tree: Path) -> None:
    report = demo_json(tree, "--workers=3")
    assert report["path"] == str(tree)
    assert report["workloads"][0]["rows"][-1]["way"] == "ceiling: 3 bare forks"
    assert [worker["name"] for worker in report["workers"]] == ["dromon-0", "dromon-1", "dromon-2"]
    assert len({worker["tid"] for worker in report["workers"]}) == 3
    assert {worker["spawn"] for worker in report["workers"]} <= {"clone3", "clone", "pthread"}
    assert report["python"]["implementation"] == "CPython"
    assert isinstance(report["python"]["gil"], bool)
    assert report["usable_cpus"] >= 1


def test_a_single_file_will_do_and_more_workers_than_files(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"alone")
    for row in demo_json(path, "--workers=3")["workloads"][0]["rows"]:
        assert (row["files"], row["bytes"]) == (1, 5)


def test_links_are_not_followed_and_special_files_not_opened(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    (tree / "link").symlink_to(tree / "empty")
    (tree / "loop").symlink_to(tree)
    (tree / "dangling").symlink_to("nowhere")
    os.mkfifo(tree / "fifo")
    report = demo_json(tree)
    assert report["workloads"][0]["rows"][0]["files"] == len(CONTENTS)
    assert report["unreadable"] == []


def test_a_file_that_cannot_be_read_is_reported_and_does_not_stop_the_demo(
    tmp_path: Path,
) -> None:
    tree = make_tree(tmp_path / "tree")
    make_unreadable(tree)
    process = demo("--json", tree)
    assert process.returncode == 0
    report = json.loads(process.stdout)
    (unreadable,) = report["unreadable"]
    assert unreadable["path"].endswith("/" + "f" * 255)
    assert unreadable["reason"] == "File name too long"
    assert process.stderr == f"cannot read {unreadable['path']!r}: File name too long\n"
    assert all(row["files"] == len(CONTENTS) for row in report["workloads"][0]["rows"])


def test_the_table_counts_what_could_not_be_read(tmp_path: Path) -> None:
    make_unreadable(make_tree(tmp_path / "tree"))
    assert "unreadable:    1\n" in demo(tmp_path).stdout


@pytest.mark.parametrize("function", [crunch, count_tokens])
def test_a_file_that_goes_away_meanwhile_is_reported_too(
    tmp_path: Path, function: Callable[[str], Work]
) -> None:
    path = str(tmp_path / "gone")
    work = function(path)
    assert work.files == 0
    assert [(each.path, each.reason) for each in work.unreadable] == [
        (path, "No such file or directory")
    ]


def test_a_path_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    process = demo(tmp_path / "missing")
    assert process.returncode == 2
    assert f"'{tmp_path}/missing': No such file or directory" in process.stderr
    assert process.stdout == ""


def test_a_folder_without_files_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    process = demo(tmp_path)
    assert process.returncode == 2
    assert f"'{tmp_path}': no regular file that can be read" in process.stderr
    assert process.stdout == ""


def test_a_folder_whose_files_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    make_unreadable(tmp_path)
    process = demo(tmp_path)
    assert process.returncode == 2
    assert "File name too long" in process.stderr
    assert "no regular file that can be read" in process.stderr


@pytest.mark.parametrize("workers", ["0", "-1", "99999", "two"])
def test_a_number_of_workers_that_makes_no_sense_is_an_error(tmp_path: Path, workers: str) -> None:
    process = demo(tmp_path, f"--workers={workers}")
    assert process.returncode == 2
    assert "argument --workers: " in process.stderr


def test_the_table_has_a_line_for_each_way(printed: str) -> None:
    for way in [*WATCHED, "ceiling: 2 bare forks"]:
        assert any(line.startswith(way) for line in printed.splitlines())
    assert "All agree: " in printed


def test_below_the_table_stands_what_it_was_measured_on(tree: Path, printed: str) -> None:
    assert f"path:          '{tree}'" in printed
    assert "unreadable:    0\n" in printed
    assert "rounds:        3, " in printed
    assert "workers:       2, isolation: thread\n" in printed
    assert "dromon-0 (TID " in printed
    assert "dromon-1 (TID " in printed
    assert "made by " in printed
    assert "Python:        CPython " in printed
    assert "GIL o" in printed
    assert "usable CPUs:   " in printed


def test_what_is_piped_holds_no_escape_codes(printed: str) -> None:
    assert "\x1b" not in printed


def test_the_progress_bar_is_seen_on_a_terminal_only_and_leaves_stdout_alone(tree: Path) -> None:
    terminal, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "dromon", "demo", "--json", str(tree)],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm"},
    ) as process:
        os.close(theirs)
        seen = b""
        try:
            while True:
                seen += os.read(terminal, 4096)
        except OSError:  # The demo has ended and closed its side.
            os.close(terminal)
        output, _ = process.communicate(timeout=TIMEOUT)
    assert b"round 3 of 3: dromon pool" in seen
    assert json.loads(output)["workloads"][0]["agree"] is True


def test_a_bare_process_that_dies_is_noticed(tree: Path) -> None:
    script = """
import os, sys
from dromon.__main__ import main
os.register_at_fork(after_in_child=lambda: os._exit(3))
main(["demo", sys.argv[1]])
"""
    process = python("-c", script, str(tree))
    assert process.returncode == 1
    assert "ChildProcessError: a bare process died" in process.stderr


def test_bare_processes_do_not_outlive_the_one_that_forked_them() -> None:
    script = """
import os, signal
from dromon._demo._forked import forked
with forked([], 2):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    # The output ends, which `python` waits for, when the last process that holds it has gone.
    assert python("-c", script).returncode < 0


def test_percentiles_are_values_that_were_seen() -> None:
    seconds = [0.004, 0.001, 0.003, 0.002]
    assert _percentile_ms(seconds, 50) == pytest.approx(2)
    assert _percentile_ms(seconds, 99) == pytest.approx(4)
    assert _percentile_ms(seconds[:1], 50) == pytest.approx(4)
    assert _percentile_ms([], 50) is None


def test_the_demo_takes_the_standard_library_by_default() -> None:
    process = python("-m", "dromon", "demo", "--help")
    assert process.returncode == 0
    # Help is filled to the width of the terminal, so its words may be anywhere.
    assert "".join(sysconfig.get_path("stdlib").split()) in "".join(process.stdout.split())


def test_the_version_is_that_of_the_package() -> None:
    process = python("-m", "dromon", "--version")
    assert process.returncode == 0
    assert process.stdout == f"dromon {importlib.metadata.version('dromon')}\n"


def test_without_a_command_the_help_is_shown_and_the_status_is_2() -> None:
    process = python("-m", "dromon")
    assert process.returncode == 2
    assert "usage: python -m dromon" in process.stderr
    assert "demo" in process.stderr
    assert process.stdout == ""
