"""How many instructions dromon takes for each thing that it does, by valgrind's callgrind.

What a task takes is what twice as many tasks take, less what so many take, divided by their number:
what is done once falls out. Run as a program this records the counts that
test_instruction_counts.py compares with, for the build that it finds:

    python tests/instruction_counts.py
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median_low
from typing import Any

from compiler import compile_library
from elftools.elf.elffile import ELFFile

from dromon import _bridge

VALGRIND = Path(shutil.which("valgrind") or "/usr/bin/valgrind")
HEADERS = VALGRIND.parents[1] / "include"

HERE = Path(__file__).parent
CORE = HERE.parent / "native" / "core"
RECORDS = HERE / "instruction_counts.json"
RUNS = 5  # for a record, which has their medians

# The files whose instructions are dromon's own.
OWN = re.compile(r"/(libdromon|_bridge|counted_core/library)[^/]*\.so$")


@dataclass(frozen=True)
class Build:
    """What counts depend on."""

    own: str  # those of dromon's own code
    whole: str  # those of all that runs
    is_optimized: bool  # as pip builds it


@dataclass(frozen=True)
class Counts:
    """Instructions for each task of each work."""

    own: dict[str, int]  # in dromon's own compiled code
    whole: dict[str, int]  # with those in Python, libc and others


def find_build() -> Build:
    with open(_bridge.__file__, "rb") as file:
        elf = ELFFile(file)
        comment = elf.get_section_by_name(".comment")
        assert comment is not None
        made_by = comment.data().decode().strip("\0").split("\0")
        has_debug_info = elf.get_section_by_name(".debug_info") is not None
    # GCC: (Debian 12.2.0-14+deb12u1) 12.2.0
    compilers = {re.sub(r":| \(.*?\)|\.\d.*", "", each) for each in made_by}
    return Build(
        own=", ".join([sysconfig.get_config_var("SOABI"), *sorted(compilers)]),
        whole=f"{sys.version}, trio {version('trio')}",
        is_optimized=not has_debug_info,
    )


def count_instructions() -> Counts:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _run_works(folder)
        return _evaluate(folder.glob("counts.*"))


def _run_works(folder: Path) -> None:
    for part in ("counting", "counted_core"):
        (folder / part).mkdir()
    counting = compile_library(
        folder / "counting", (HERE / "counting.c").read_text(), f"-I{HEADERS}"
    )
    core = compile_library(
        folder / "counted_core",
        (HERE / "counted_core.c").read_text(),
        *("-O3", "-DNDEBUG", "-D_GNU_SOURCE"),  # as what pip builds
        *(f"-I{native}" for native in (CORE, CORE.parent / "include")),
        *(str(CORE / name) for name in ("ring.c", "deque.c")),
        *("-Wl,--no-as-needed", _find_library()),
    )
    subprocess.run(
        [
            VALGRIND,
            *("--quiet", "--tool=callgrind", "--fair-sched=yes", "--instr-atstart=no"),
            *("--dump-line=no", "--compress-strings=no", "--compress-pos=no"),
            f"--callgrind-out-file={folder / 'counts'}",
            *(sys.executable, str(HERE / "counted_works.py"), str(counting), str(core)),
        ],
        env={**os.environ, "LD_PRELOAD": str(counting), "PYTHONHASHSEED": "0"},
        timeout=300,
        check=True,
    )


def _find_library() -> str:
    """The libdromon.so of this process."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    return next(line.split(maxsplit=5)[-1] for line in maps if line.endswith("/libdromon.so"))


def _evaluate(files: Iterable[Path]) -> Counts:
    seen: dict[str, dict[int, Counter[str]]] = defaultdict(dict)
    for file in files:
        title, by_object = _read(file)
        work, _, times = title.partition("/")
        seen[work][int(times)] = by_object
    own, whole = {}, {}
    for work, runs in seen.items():
        few, many = sorted(runs)
        runs[many].subtract(runs[few])
        each = {name: count / (many - few) for name, count in runs[many].items()}
        own[work] = round(sum(count for name, count in each.items() if OWN.search(name)))
        whole[work] = round(sum(each.values()))
    return Counts(own, whole)


def _read(file: Path) -> tuple[str, Counter[str]]:
    """What one of callgrind's files is of, and its instructions by the file that they are in."""
    title, name, of_callee = "", "", False
    by_object: Counter[str] = Counter()
    for line in file.read_text().splitlines():
        if line.startswith("desc: Trigger: "):
            title = line.removeprefix("desc: Trigger: Client Request: ")
        elif line.startswith("ob="):
            name = line.removeprefix("ob=")
        elif line.startswith("calls="):
            of_callee = True  # what follows is counted there, too
        elif line[:1].isdigit():
            if not of_callee:
                by_object[name] += int(line.split()[1])
            of_callee = False
    return title, by_object


def load_records() -> dict[str, Any]:
    records: dict[str, Any] = json.loads(RECORDS.read_text())
    return records


def record() -> None:
    build = find_build()
    if not build.is_optimized:
        sys.exit("this build of dromon has debug information: what pip builds is recorded")
    runs = [count_instructions() for _ in range(RUNS)]
    records = load_records()
    records[build.own] = {
        "own": _medians([run.own for run in runs]),
        "whole with": build.whole,
        "whole": _medians([run.whole for run in runs]),
    }
    RECORDS.write_text(json.dumps(records, indent=2, sort_keys=True) + "\n")


def _medians(runs: list[dict[str, int]]) -> dict[str, int]:
    return {work: median_low(run[work] for run in runs) for work in runs[0]}


if __name__ == "__main__":
    record()
