"""The number of CPUs that a process may use, from its affinity mask and its control groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dromon._cpus import usable_cpus


@pytest.fixture(autouse=True)
def eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_without_control_groups_the_affinity_mask_counts(tmp_path: Path) -> None:
    assert usable_cpus(tmp_path) == 8


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000", 8),
        ("250000 100000", 3),
        ("100000 100000", 1),
        ("10000 100000", 1),
        ("1600000 100000", 8),
    ],
)
def test_a_quota_of_version_2_counts_if_it_is_less(
    tmp_path: Path, quota: str, expected: int
) -> None:
    write(tmp_path / "proc/self/cgroup", "0::/app.slice/app\n")
    write(tmp_path / "sys/fs/cgroup/app.slice/app/cpu.max", f"{quota}\n")
    assert usable_cpus(tmp_path) == expected


def test_the_quota_of_an_ancestor_counts_too(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "0::/a/b/c\n")
    write(tmp_path / "sys/fs/cgroup/a/b/c/cpu.max", "max 100000\n")
    write(tmp_path / "sys/fs/cgroup/a/cpu.max", "200000 100000\n")
    assert usable_cpus(tmp_path) == 2


def test_in_a_container_the_quota_of_the_root_of_the_mount_counts(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "0::/../../outside\n")
    write(tmp_path / "sys/fs/cgroup/cpu.max", "400000 100000\n")
    assert usable_cpus(tmp_path) == 4


@pytest.mark.parametrize(("quota", "expected"), [("-1", 8), ("150000", 2)])
def test_a_quota_of_version_1_counts_if_it_is_less(
    tmp_path: Path, quota: str, expected: int
) -> None:
    write(tmp_path / "proc/self/cgroup", "5:memory:/m\n4:cpu,cpuacct:/docker/x\n0::/\n")
    write(tmp_path / "sys/fs/cgroup/cpu/docker/x/cpu.cfs_quota_us", f"{quota}\n")
    write(tmp_path / "sys/fs/cgroup/cpu/docker/x/cpu.cfs_period_us", "100000\n")
    assert usable_cpus(tmp_path) == expected


def test_this_machine_gives_at_least_one() -> None:
    assert usable_cpus() >= 1
