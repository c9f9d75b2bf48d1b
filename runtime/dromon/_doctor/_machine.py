"""Kernel, libc, sandbox, CPUs and limits, as this process has them."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
from pathlib import Path
from typing import Final

import attrs

from .._cgroups import ROOT, groups, read
from .._cpus import cpu_quota, usable_cpus

SECCOMP_MODES: Final = {"0": "off", "1": "strict", "2": "filter"}


@attrs.frozen
class Limits:
    """How many threads and how much memory the process may have; None stands for no limit.

    Attributes:
      user_processes (int | None): Threads of the user, ``ulimit -u``; root is not bound by it.
      system_threads (int | None): Threads of the system, ``kernel.threads-max``.
      cgroup_processes (int | None): Threads of the strictest control group, ``pids.max``.
      cgroup_processes_now (int | None): How many there are in that group; None without one.
      address_space (int | None): Bytes, ``ulimit -v``.
      cgroup_memory (int | None): Bytes of the strictest control group, ``memory.max``.
      mappings (int | None): Mappings of the process, ``vm.max_map_count``; each stack takes two.
      open_files (int | None): Descriptors, ``ulimit -n``; each trio run takes one.
    """

    user_processes: int | None
    system_threads: int | None
    cgroup_processes: int | None
    cgroup_processes_now: int | None
    address_space: int | None
    cgroup_memory: int | None
    mappings: int | None
    open_files: int | None

    @classmethod
    def examine(cls, root: Path = ROOT) -> Limits:
        processes = _strictest("pids", "pids.max", "pids.max", root)
        memory = _strictest("memory", "memory.limit_in_bytes", "memory.max", root)
        return cls(
            user_processes=_soft(resource.RLIMIT_NPROC),
            system_threads=_number(root / "proc/sys/kernel/threads-max"),
            cgroup_processes=None if processes is None else processes[0],
            cgroup_processes_now=(
                None if processes is None else _number(processes[1] / "pids.current")
            ),
            address_space=_soft(resource.RLIMIT_AS),
            cgroup_memory=None if memory is None else memory[0],
            mappings=_number(root / "proc/sys/vm/max_map_count"),
            open_files=_soft(resource.RLIMIT_NOFILE),
        )


def _soft(limit: int) -> int | None:
    soft, _ = resource.getrlimit(limit)
    return None if soft == resource.RLIM_INFINITY else soft


def _number(path: Path) -> int | None:
    text = read(path).strip()
    return int(text) if text.isdigit() else None


def _strictest(controller: str, file_v1: str, file_v2: str, root: Path) -> tuple[int, Path] | None:
    """The least limit of the control groups that set one, and the group's folder."""
    limits = []
    for version, directory in groups(controller, root):
        limit = _number(directory / (file_v1 if version == 1 else file_v2))
        # "max", or in version 1 the largest number of whole pages.
        if limit is not None and limit < 1 << 62:
            limits.append((limit, directory))
    return min(limits, default=None)


@attrs.frozen
class Machine:
    """What the process runs on.

    Attributes:
      system (str): The kernel's name, release and machine.
      libc (str): The C library and its version.
      seccomp (str): ``"off"``, ``"strict"`` or ``"filter"``; ``"unknown"`` without ``/proc``.
      seccomp_filters (int | None): How many filters there are; None if the kernel does not say.
      rseq (bool): Whether libc has registered an area for restartable sequences.
      cpus (list[int]): The CPUs that the affinity of the process allows.
      cpu_quota (float | None): How many CPUs' time its control groups allow; None: no quota.
      usable_cpus (int): How many CPUs both leave.
      limits (Limits): Other limits.
    """

    system: str
    libc: str
    seccomp: str
    seccomp_filters: int | None
    rseq: bool
    cpus: list[int]
    cpu_quota: float | None
    usable_cpus: int
    limits: Limits

    @classmethod
    def examine(cls) -> Machine:
        status = dict(line.split(":", 1) for line in read(Path("/proc/self/status")).splitlines())
        filters = status.get("Seccomp_filters", "").strip()
        uname = platform.uname()
        return cls(
            system=f"{uname.system} {uname.release} {uname.machine}",
            libc=" ".join(platform.libc_ver()).strip() or "unknown, not glibc",
            seccomp=SECCOMP_MODES.get(status.get("Seccomp", "").strip(), "unknown"),
            seccomp_filters=int(filters) if filters else None,
            rseq=_rseq_is_registered(),
            cpus=sorted(os.sched_getaffinity(0)),
            cpu_quota=cpu_quota(),
            usable_cpus=usable_cpus(),
            limits=Limits.examine(),
        )


def _rseq_is_registered() -> bool:
    """Whether glibc has done it: ``__rseq_size`` is 0 where it has not, or could not.

    Source: "Restartable Sequences" in the manual of the GNU C Library.
    """
    try:
        return bool(ctypes.c_uint.in_dll(ctypes.CDLL(None), "__rseq_size").value)
    except ValueError:  # before glibc 2.35, or another libc
        return False
