"""How many CPUs this process may really use."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

from ._cgroups import ROOT, groups, read

if TYPE_CHECKING:
    from pathlib import Path


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
    quota = cpu_quota(root)
    return allowed if quota is None else max(1, min(allowed, math.ceil(quota)))


def cpu_quota(root: Path = ROOT) -> float | None:
    """Return how many CPUs the control groups allow, as a fraction; None if they set no quota."""
    quotas = [
        (_quota_v1 if version == 1 else _quota_v2)(directory)
        for version, directory in groups("cpu", root)
    ]
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota_v2(directory: Path) -> float | None:
    quota, _, period = read(directory / "cpu.max").partition(" ")
    return int(quota) / int(period) if quota.isdigit() and int(period) > 0 else None


def _quota_v1(directory: Path) -> float | None:
    quota = read(directory / "cpu.cfs_quota_us").strip()  # -1: no limit
    period = read(directory / "cpu.cfs_period_us").strip()
    return int(quota) / int(period) if quota.isdigit() and int(period or 0) > 0 else None
