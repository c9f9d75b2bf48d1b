"""What happens when a pool cannot be opened: a SpawnError that helps, and nothing left behind."""

from __future__ import annotations

import errno
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from child import check_child, run_child

import dromon


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.ENOMEM, errno.EPERM, errno.EMFILE])
def test_a_spawn_error_says_what_failed_why_and_what_can_be_done(code: int) -> None:
    error = dromon.SpawnError.from_errno(code, "cannot start 4 workers")
    assert error.errno == code
    assert error.strerror is not None
    failure, _, hint = error.strerror.partition("; ")
    assert failure == f"cannot start 4 workers: {os.strerror(code)}"
    assert "limit" in hint or "seccomp" in hint


def fails_with(script: str, code: str | tuple[str, ...], *hints: str) -> None:
    """Run a child, and assert that all its pools failed so and that it works in the end."""
    result = run_child(script)
    assert (result.returncode, result.stderr) == (0, "")
    *errors, end = result.stdout.splitlines()
    assert errors
    for error in errors:
        assert error.startswith(code)
        assert all(hint in error for hint in hints)
    assert end == "and works again"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user with no processes yet")
def test_at_the_limit_on_processes() -> None:
    fails_with(
        """
        import os, resource, trio
        from spawn_failures import fail, leaving_nothing

        async def main():
            async with leaving_nothing():
                os.setuid(54321)  # a user with no other process; root has no limit
                _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
                resource.setrlimit(resource.RLIMIT_NPROC, (3, hard))
                await fail(workers=50)
                resource.setrlimit(resource.RLIMIT_NPROC, (1000, hard))

        trio.run(main)
        """,
        "EAGAIN",
        "cannot start 50 workers",
        "ulimit -u",
        "pids.max",
    )


@pytest.fixture
def control_group() -> Iterator[Path]:
    """A new group whose processes can be limited in number."""
    candidates = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        hierarchy, controllers, path = line.split(":", 2)
        if hierarchy == "0":
            mount = Path("/sys/fs/cgroup")
        elif "pids" in controllers.split(","):
            mount = Path("/sys/fs/cgroup/pids")
        else:
            continue
        own = mount / path.lstrip("/")
        candidates += [each for each in [own, *own.parents] if each.is_relative_to(mount)]
    for parent in candidates:
        group = parent / f"dromon-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if os.access(group / "pids.max", os.W_OK):
                yield group
                return
        finally:
            remove(group)
    pytest.skip("this machine has no control group in which this user may limit processes")


def remove(group: Path) -> None:
    for _ in range(1000):
        try:
            group.rmdir()
        except OSError:  # a process that has ended may be counted a moment longer
            time.sleep(0.01)
        else:
            return


def test_at_the_limit_of_a_control_group(control_group: Path) -> None:
    fails_with(
        f"""
        import os, trio
        from pathlib import Path
        from spawn_failures import fail, leaving_nothing

        group = Path({str(control_group)!r})

        async def main():
            (group / "cgroup.procs").write_text(str(os.getpid()))
            async with leaving_nothing():
                (group / "pids.max").write_text("4")
                await fail(workers=50)
                (group / "pids.max").write_text("max")

        trio.run(main)
        """,
        "EAGAIN",
        "cannot start 50 workers",
        "pids.max",
    )


def test_at_the_limit_on_memory() -> None:
    script = """
        import os, resource, trio
        from spawn_failures import fail, leaving_nothing

        async def main():
            async with leaving_nothing():
                memory = int(open("/proc/self/statm").read().split()[0])
                memory *= os.sysconf("SC_PAGE_SIZE")
                # Room for a few stacks of 8 MiB, and not for 64.
                _, hard = resource.getrlimit(resource.RLIMIT_AS)
                resource.setrlimit(resource.RLIMIT_AS, (memory + (100 << 20), hard))
                await fail(workers=64)
                resource.setrlimit(resource.RLIMIT_AS, (hard, hard))

        trio.run(main)
    """
    fails_with(
        script,
        # libc calls it the second where its own memory for a thread is what could not be had.
        ("ENOMEM", "EAGAIN"),
        "cannot start 64 workers",
        "ulimit -v",
    )


WITHOUT_A_DESCRIPTOR = """
    import os, resource

    class WithoutADescriptor:
        def __enter__(self):
            self.limits = resource.getrlimit(resource.RLIMIT_NOFILE)
            highest = max(map(int, os.listdir("/proc/self/fd")))
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest, self.limits[1]))
            self.fill = []
            try:
                while True:
                    self.fill.append(os.dup(0))
            except OSError:
                pass

        def __exit__(self, *_):
            for descriptor in self.fill:
                os.close(descriptor)
            resource.setrlimit(resource.RLIMIT_NOFILE, self.limits)
"""


def test_without_a_descriptor_for_the_eventfd_of_the_run() -> None:
    fails_with(
        WITHOUT_A_DESCRIPTOR
        + """
    import trio
    from spawn_failures import fail, leaving_nothing

    async def main():
        async with leaving_nothing():
            def in_a_run_of_its_own():
                async def main():
                    with WithoutADescriptor():
                        await fail(workers=2)
                trio.run(main)
            await trio.to_thread.run_sync(in_a_run_of_its_own)

    # trio keeps a thread for a while.
    trio.run(trio.to_thread.run_sync, int)
    trio.run(main)
    """,
        "EMFILE",
        "cannot open the eventfd",
        "ulimit -n",
    )


def test_the_first_call_of_a_run_without_a_descriptor_is_a_spawn_error_too() -> None:
    check_child(
        WITHOUT_A_DESCRIPTOR
        + """
    import errno, trio, dromon

    async def main():
        for limiter in (None, trio.CapacityLimiter(1)):
            try:
                with WithoutADescriptor():
                    await dromon.to_thread.run_sync(int, limiter=limiter)
            except dromon.SpawnError as error:
                print(errno.errorcode[error.errno])
        assert limiter.borrowed_tokens == 0
        print(await dromon.to_thread.run_sync(int, "7"))

    trio.run(main)
    """,
        "EMFILE\nEMFILE\n7",
    )


GLIBC = tuple(int(part) for part in platform.libc_ver()[1].split(".") if part.isdigit())


@pytest.mark.skipif(GLIBC < (2, 34), reason="this libc starts threads without clone3")
def test_where_a_sandbox_forbids_clone3() -> None:
    result = run_child(
        """
        import errno, os, trio
        from seccomp import CLONE3, refuse
        from spawn_failures import fail, leaving_nothing

        async def main():
            async with leaving_nothing(for_good=True):
                refuse(CLONE3, errno.EPERM)
                await fail(workers=2)

        trio.run(main)
        """
    )
    assert (result.returncode, result.stderr) == (0, "")
    (error,) = result.stdout.splitlines()
    assert error.startswith("EPERM: cannot start 2 workers: Operation not permitted; a sandbox")
    assert "seccomp" in error


@pytest.mark.parametrize("hook", ["trace", "profile"])
def test_an_exception_of_a_worker_as_it_begins_is_named_and_shown(hook: str) -> None:
    result = run_child(
        f"""
        import threading, trio, dromon
        from spawn_failures import fail, leaving_nothing

        def hook(*_):
            raise LookupError("from the hook")

        async def main():
            async with leaving_nothing():
                threading.set{hook}(hook)
                await fail(workers=1, times=5)  # of several the output would mingle
                threading.set{hook}(None)
                assert threading.enumerate() == [threading.main_thread()]

        trio.run(main)
        """
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        "EIO: cannot start 1 worker: Input/output error; a worker met an exception as it began,"
        " which sys.unraisablehook was given",
        "and works again",
    ]
    assert result.stderr.count("LookupError: from the hook") >= 5
