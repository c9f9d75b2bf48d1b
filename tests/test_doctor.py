"""``python -m dromon doctor``: what it finds, what it says, and its exit status."""

from __future__ import annotations

import errno
import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from child import run_child

from dromon import _cgroups
from dromon._cpus import usable_cpus
from dromon._doctor._extensions import extension_modules, try_modules
from dromon._doctor._machine import Limits
from dromon._doctor._report import _ranges

CAN_TRY_MODULES = sys.version_info >= (3, 12)


def doctor(
    *arguments: str, before: str = "", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run it, after `before`, in a process of its own."""
    # No test but those of modules needs that all installed ones are tried.
    return run_child(
        f"{before}\n"
        "import sys, dromon._doctor as doctor\n"
        "from dromon._doctor._extensions import Extensions\n"
        "doctor.examine_extensions = lambda: Extensions('not asked', [])\n"
        "from dromon.__main__ import main\n"
        f"sys.exit(main(['doctor', *{arguments!r}]))",
        env=env,
    )


def doctor_json(
    *, status: int = 0, before: str = "", env: dict[str, str] | None = None
) -> dict[str, Any]:
    process = doctor("--json", before=before, env=env)
    assert process.returncode == status, process.stderr
    assert process.stderr == ""
    report: dict[str, Any] = json.loads(process.stdout)
    assert report["works"] is (status == 0)
    return report


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return doctor_json()


@pytest.fixture(scope="module")
def printed() -> dict[str, str]:
    """The lines of the table, by what they are about."""
    process = doctor(env={"COLUMNS": "300", "FORCE_COLOR": ""})
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.endswith("\ndromon can work here.\n")
    lines = process.stdout.partition("\n\n")[0].splitlines()
    return {line[:15].strip(): line[15:].strip() for line in lines}


# ---- Where all is well ---------------------------------------------------------------------------


def test_it_says_how_threads_are_made_and_that_all_is_well(
    report: dict[str, Any], printed: dict[str, str]
) -> None:
    reason = report["threads"].pop("no_isolation")
    assert (reason is None) is CAN_TRY_MODULES
    assert printed["isolation"] == (reason or "isolated workers can be had")
    assert report["threads"] == {
        "spawn": "clone3",
        "spawn_error": None,
        "spawn_asked_for": None,
        "default_workers": usable_cpus(),
        "problems": [],
    }
    assert printed["threads"] == "made by clone3"
    assert printed["default pool"].startswith(f"{usable_cpus()} worker")


def test_it_names_kernel_and_libc(report: dict[str, Any], printed: dict[str, str]) -> None:
    machine = report["machine"]
    assert machine["system"] == printed["kernel"]
    assert printed["kernel"] == f"Linux {platform.release()} {platform.machine()}"
    assert machine["libc"] == printed["libc"] == " ".join(platform.libc_ver())


def test_it_knows_the_cpus(report: dict[str, Any], printed: dict[str, str]) -> None:
    machine = report["machine"]
    assert machine["cpus"] == sorted(os.sched_getaffinity(0))
    assert machine["usable_cpus"] == usable_cpus()
    assert printed["CPUs"].startswith(f"{usable_cpus()} usable: {len(machine['cpus'])} by affinity")


def test_it_follows_the_affinity_of_the_process() -> None:
    cpu = min(os.sched_getaffinity(0))
    report = doctor_json(before=f"import os; os.sched_setaffinity(0, {{{cpu}}})")
    assert report["machine"]["cpus"] == [cpu]
    assert report["machine"]["usable_cpus"] == report["threads"]["default_workers"] == 1


def test_it_knows_limits(report: dict[str, Any], printed: dict[str, str]) -> None:
    limits = report["machine"]["limits"]
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert limits["open_files"] == (None if files == resource.RLIM_INFINITY else files)
    assert str(limits["system_threads"]) == Path("/proc/sys/kernel/threads-max").read_text().strip()
    assert "kernel.threads-max" in printed["threads at most"]
    assert "memory.max" in printed["memory at most"]
    assert "ulimit -n" in printed["files at most"]


def test_it_finds_the_strictest_limits_of_control_groups(tmp_path: Path) -> None:
    def write(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    write("proc/self/cgroup", "4:pids:/a\n0::/x/y\n")
    write("sys/fs/cgroup/pids/a/pids.max", "50\n")
    write("sys/fs/cgroup/pids/a/pids.current", "7\n")
    write("sys/fs/cgroup/x/pids.max", "60\n")
    write("sys/fs/cgroup/x/memory.max", "1048576\n")
    write("sys/fs/cgroup/x/y/memory.max", "max\n")
    limits = Limits.examine(tmp_path)
    assert (limits.cgroup_processes, limits.cgroup_processes_now) == (50, 7)
    assert limits.cgroup_memory == 1 << 20
    # In version 1 no limit is a very large one.
    write("proc/self/cgroup", "4:memory:/a\n")
    write("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "9223372036854771712\n")
    assert Limits.examine(tmp_path).cgroup_memory is None


def test_without_control_groups_there_is_no_limit_of_theirs(tmp_path: Path) -> None:
    assert [*_cgroups.groups("pids", tmp_path)] == []
    limits = Limits.examine(tmp_path)
    assert limits.cgroup_processes is limits.cgroup_memory is limits.mappings is None


def test_it_describes_python(report: dict[str, Any], printed: dict[str, str]) -> None:
    python = report["python"]
    assert python["version"] == platform.python_version()
    assert python["implementation"] == "CPython"
    assert python["debug"] is bool(sysconfig.get_config_var("Py_DEBUG"))
    free_threaded = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
    assert python["gil"] in (("off", "on again") if free_threaded else ("on",))
    assert printed["GIL"] == python["gil"]
    for name in ("dromon", "trio", "cffi"):
        assert python["packages"][name] == importlib.metadata.version(name)
        assert f"{name} {importlib.metadata.version(name)}" in printed["packages"]


@pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this build of Python has a GIL"
)
def test_it_notices_a_gil_that_was_switched_on_again() -> None:
    assert doctor_json(env={"PYTHON_GIL": "1"})["python"]["gil"] == "on again"


@pytest.mark.skipif(
    sys.version_info < (3, 11) or platform.libc_ver()[0] != "glibc", reason="libc is not glibc"
)
def test_it_knows_whether_libc_has_registered_for_rseq() -> None:
    without = doctor_json(env={"GLIBC_TUNABLES": "glibc.pthread.rseq=0"})
    assert without["machine"]["rseq"] is False
    assert without["threads"]["spawn"] == "clone3"


def test_numbers_of_cpus_are_written_as_ranges() -> None:
    assert _ranges([0, 1, 2, 5, 7, 8]) == "0-2,5,7-8"


# ---- Where something is in the way ---------------------------------------------------------------

REFUSE = "import errno; from seccomp import CLONE3, refuse; refuse(CLONE3, errno."


def test_it_says_why_threads_are_not_made_by_clone3() -> None:
    report = doctor_json(before=f"{REFUSE}ENOSYS)")
    assert report["threads"]["spawn"] in ("clone", "pthread")
    assert report["threads"]["spawn_error"] == os.strerror(errno.ENOSYS)
    assert report["machine"]["seccomp"] == "filter"
    assert report["machine"]["seccomp_filters"] in (1, None)
    printed = doctor(before=f"{REFUSE}ENOSYS)").stdout
    assert f", not by clone3: {os.strerror(errno.ENOSYS)}" in printed
    assert "dromon can work here." in printed


def test_it_says_what_to_do_where_a_sandbox_forbids_threads() -> None:
    process = doctor(before=f"{REFUSE}EPERM)")
    assert process.returncode == 1
    assert "none could be made" in process.stdout
    verdict = process.stdout.splitlines()[-1]
    assert verdict.startswith("dromon cannot work here: cannot start 1 worker")
    assert "seccomp" in verdict
    (problem,) = doctor_json(status=1, before=f"{REFUSE}EPERM)")["threads"]["problems"]
    assert problem in verdict


def test_it_says_what_to_do_about_a_bad_environment() -> None:
    report = doctor_json(status=1, env={"DROMON_WORKERS": "many"})
    assert report["threads"]["default_workers"] is None
    (problem,) = report["threads"]["problems"]
    assert "DROMON_WORKERS must be a number from 1 to 1024, not 'many'; correct or" in problem
    (problem,) = doctor_json(status=1, env={"DROMON_SPAWN": "fork"})["threads"]["problems"]
    assert "DROMON_SPAWN must be" in problem


def test_it_says_that_threads_are_made_as_the_environment_asks() -> None:
    process = doctor(env={"DROMON_SPAWN": "pthread"})
    assert "made by pthread (DROMON_SPAWN asks for pthread)" in process.stdout


def test_it_says_what_to_do_without_enough_descriptors() -> None:
    process = run_child(
        """
        import os, resource
        from dromon._doctor._threads import try_a_pool

        try_a_pool()  # all is imported now
        highest = max(map(int, os.listdir("/proc/self/fd")))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 10, highest + 10))
        fill = []
        try:
            while True:
                fill.append(os.dup(0))
        except OSError:
            pass
        while problems := try_a_pool().problems:
            print(*problems)
            os.close(fill.pop())
        """
    )
    assert (process.returncode, process.stderr) == (0, "")
    *others, last = process.stdout.splitlines()
    assert all("trio cannot run" in other and "ulimit -n" in other for other in others)
    assert "eventfd" in last
    assert "ulimit -n" in last


# ---- Extension modules ---------------------------------------------------------------------------


class FakeDistribution(importlib.metadata.Distribution):
    def __init__(self, folder: Path, names: list[str]) -> None:
        self.folder = folder
        self.names = names

    def read_text(self, filename: str) -> str | None:
        return "\n".join(f"{name},," for name in self.names) if filename == "RECORD" else None

    def locate_file(self, path: os.PathLike[str] | str) -> Any:
        return self.folder / path


def test_shared_libraries_are_not_taken_for_modules(tmp_path: Path) -> None:
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    files = {
        f"package/module{suffix}": b"PyInit_module",
        "package/stable.abi3.so": b"PyInit_stable",
        f"package/whole/__init__{suffix}": b"PyInit_whole PyInit___init__",
        "package/libother.so": b"",
        "package.libs/libother-1234.so": b"",
        "package/plain.py": b"",
        "package/.hidden.so": b"PyInit_",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    distribution = FakeDistribution(tmp_path, [*files, "package/absent.so"])
    assert extension_modules(distribution) == [
        "package.module",
        "package.stable",
        "package.whole",
    ]


@pytest.mark.skipif(CAN_TRY_MODULES, reason="this Python can try modules")
def test_before_python_3_12_it_says_that_it_cannot_try_modules() -> None:
    process = run_child("import sys; from dromon.__main__ import main; sys.exit(main(['doctor']))")
    assert process.returncode == 0
    assert "need Python 3.12" in " ".join(process.stdout.split())


@pytest.mark.skipif(not CAN_TRY_MODULES, reason="own GILs need Python 3.12")
def test_it_tells_modules_that_load_from_those_that_do_not() -> None:
    process = subprocess.run(
        [sys.executable, "-m", "dromon", "doctor", "--json"],
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    modules = {each["module"]: each for each in json.loads(process.stdout)["extensions"]["modules"]}
    assert modules["_cffi_backend"]["distribution"] == "cffi"
    assert "does not support loading in subinterpreters" in modules["_cffi_backend"]["problem"]


@pytest.mark.skipif(not CAN_TRY_MODULES, reason="own GILs need Python 3.12")
def test_a_module_that_crashes_hangs_or_leaves_keeps_no_other_from_being_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = {
        "loads": "",
        "crashes": "import ctypes; ctypes.string_at(0)",
        "raises": "raise LookupError('why')",
        "wraps": "try: import raises\nexcept LookupError as error: raise ImportError from error",
        "leaves": "import os; os._exit(3)",
        "exits": "raise SystemExit",
        "prints": "import os; os.write(1, b'noise'); os.write(2, b'noise'); print('noise')",
        "hangs": "import time; time.sleep(1000)",
        "loads_too": "",
    }
    # ctypes does not load there before Python 3.13.
    modules["crashes"] = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    for name, code in modules.items():
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = {each.module: each.problem for each in try_modules("d", modules, seconds=10)}
    assert found == {
        "loads": None,
        "crashes": "its import ended the process by SIGSEGV",
        "raises": "LookupError: why",
        "wraps": "LookupError: why",
        "leaves": "its import ended the process with status 3",
        "exits": "SystemExit: ",
        "prints": None,
        "hangs": "nothing came of it in 10 seconds",
        "loads_too": None,
    }
