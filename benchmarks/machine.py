"""What the numbers depend on: the machine, its kernel, this Python, and the versions of all."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

PACKAGES = [
    "dromon",
    "trio",
    "anyio",
    "trio-parallel",
    "joblib",
    "loky",
    "gevent",
    "greenlet",
    "dask",
    "distributed",
]


def version_of(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def first_line(path: str) -> str:
    """Of a file of the kernel's, which a virtual machine may not have."""
    try:
        return Path(path).read_text().strip() or "unknown"
    except OSError:
        return "unknown"


def hypervisor() -> str:
    """What there is below the kernel: what else runs there is not seen from here."""
    if "hypervisor" not in Path("/proc/cpuinfo").read_text():
        return "no hypervisor seen"
    return f"virtual ({first_line('/sys/class/dmi/id/sys_vendor')})"


def commit() -> str:
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--tags"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):  # no git, or not a clone
        return "unknown"
    return done.stdout.strip()


def load() -> str:
    return " ".join(f"{average:.1f}" for average in os.getloadavg())


def describe(workers: int, seed: int) -> dict[str, str]:
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    cpus = sorted(os.sched_getaffinity(0))
    frequencies = first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return {
        "command": shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        "commit": commit(),
        "seed": str(seed),
        "machine": f"{processor()}, {os.cpu_count()} CPUs, {hypervisor()}",
        "power": f"frequency governor {frequencies}, idle driver"
        f" {first_line('/sys/devices/system/cpu/cpuidle/current_driver')}",
        "pinned to": f"CPUs {', '.join(map(str, cpus))}, {workers} workers",
        "kernel": f"{platform.system()} {platform.release()}, {' '.join(platform.libc_ver())}",
        "Python": f"{platform.python_implementation()} {platform.python_version()},"
        f" {platform.python_compiler()}, GIL {'on' if gil else 'off'}",
        "packages": ", ".join(f"{name} {version_of(name)}" for name in PACKAGES),
        "load before": load(),
    }


def resident() -> int:
    """Bytes of this process that are in memory."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
