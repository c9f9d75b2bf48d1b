"""How many CPUs this process may really use."""

from __future__ import annotations

import math
import os
from pathlib import Path

ROOT = Path("/")


def usable_cpus(root: Path = ROOT) -> int:
    """Return how many CPUs this process can keep busy, at least 1.

    That is the number of CPUs that its affinity mask allows (`os.sched_getaffinity`), or the CPU
    quota of its control groups if that is less; a part of a CPU counts as one.

    Args:
      root: Where ``proc`` and ``sys`` are mounted.

    Source: the kernel's ``Documentation/admin-guide/cgroup-v2.rst`` (``cpu.max``) and
    ``Documentation/scheduler/sched-bwc.rst`` (``cpu.cfs_quota_us``), and :manpage:`cgroups(7)`.
    """
    allowed = len(os.sched_getaffinity(0))
    return max(1, min([allowed, *(math.ceil(quota) for quota in _cgroup_quotas(root))]))


def _cgroup_quotas(root: Path) -> list[float]:
    """The quotas, in CPUs, of each control group that this process is in and of their ancestors."""
    quotas = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        hierarchy, controllers, group = line.split(":", 2)
        if hierarchy == "0":
            mount, read_quota = root / "sys/fs/cgroup", _quota_v2
        elif "cpu" in controllers.split(","):
            mount, read_quota = root / "sys/fs/cgroup/cpu", _quota_v1
        else:
            continue
        # In a container the path may name a group that lies outside the mounted tree; then its
        # files are absent, and those of the mount's root, which is the container's own, count.
        path = mount / group.lstrip("/")
        for directory in [path, *path.parents]:
            if directory.is_relative_to(mount):
                quotas.append(read_quota(directory))
    return [quota for quota in quotas if quota is not None]


def _quota_v2(directory: Path) -> float | None:
    quota, _, period = _read(directory / "cpu.max").partition(" ")
    return int(quota) / int(period) if quota.isdigit() and int(period) > 0 else None


def _quota_v1(directory: Path) -> float | None:
    quota = _read(directory / "cpu.cfs_quota_us").strip()  # -1: no limit
    period = _read(directory / "cpu.cfs_period_us").strip()
    return int(quota) / int(period) if quota.isdigit() and int(period or 0) > 0 else None


def _read(path: Path) -> str:
    """The file's text; nothing if it is not there or not ours to read."""
    try:
        return path.read_text()
    except OSError:
        return ""
