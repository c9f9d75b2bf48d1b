"""The control groups of this process, whose limits hold for it.

Source: the kernel's ``Documentation/admin-guide/cgroup-v2.rst``, and :manpage:`cgroups(7)`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path("/")


def groups(controller: str, root: Path = ROOT) -> Iterator[tuple[int, Path]]:
    """Each control group that this process is in for a controller, and all their ancestors.

    Args:
      controller (str): ``"cpu"``, ``"pids"``, ``"memory"`` or another.
      root (Path): Where ``proc`` and ``sys`` are mounted.

    Returns:
      The version of the hierarchy, 1 or 2, and the group's folder, which need not exist.
    """
    for line in read(root / "proc/self/cgroup").splitlines():
        hierarchy, controllers, group = line.split(":", 2)
        if hierarchy == "0":
            version, mount = 2, root / "sys/fs/cgroup"
        elif controller in controllers.split(","):
            version, mount = 1, root / "sys/fs/cgroup" / controller
        else:
            continue
        # In a container the path may name a group that lies outside the mounted tree; then its
        # files are absent, and those of the mount's root, which is the container's own, count.
        path = mount / group.lstrip("/")
        for directory in [path, *path.parents]:
            if directory.is_relative_to(mount):
                yield version, directory


def read(path: Path) -> str:
    """The file's text; nothing if it is not there or not ours to read."""
    try:
        return path.read_text()
    except OSError:
        return ""
