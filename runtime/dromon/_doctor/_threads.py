"""Whether a pool opens and answers, and how its thread was made."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import attrs
import trio

from .. import Pool, SpawnError, open_pool
from .._options import SPAWN_VARIABLE, WORKERS_VARIABLE, default_workers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .. import WorkerStatistics


@attrs.frozen
class Threads:
    """How threads are made here.

    Attributes:
      spawn (str | None): As `WorkerStatistics.spawn`; None if there was no pool.
      spawn_error (str | None): As `WorkerStatistics.spawn_error`: why it is not ``"clone3"``.
      spawn_asked_for (str | None): What ``DROMON_SPAWN`` asks for.
      default_workers (int | None): How many workers the default pool would have.
      no_isolation (str | None): Why there can be no isolated workers; None if there can.
      problems (Sequence[str]): What keeps pools from working, and what to do.
    """

    spawn: str | None
    spawn_error: str | None
    spawn_asked_for: str | None
    default_workers: int | None
    no_isolation: str | None
    problems: Sequence[str]


def try_a_pool() -> Threads:
    """Open a pool of one worker and make a call."""
    problems = []
    workers: int | None = None
    worker: WorkerStatistics | None = None
    try:
        workers = default_workers()
    except ValueError as error:
        problems.append(f"{error}; correct or unset {WORKERS_VARIABLE}")
    try:
        worker = trio.run(_call_once)
    except SpawnError as error:
        problems.append(str(error.strerror))
    except ValueError as error:
        problems.append(str(error))
    except OSError as error:
        problems.append(str(SpawnError.from_errno(error.errno or 0, "trio cannot run").strerror))
    return Threads(
        spawn=None if worker is None else worker.spawn,
        spawn_error=None if worker is None else worker.spawn_error,
        spawn_asked_for=os.environ.get(SPAWN_VARIABLE),
        default_workers=workers,
        no_isolation=_try_isolation() if worker is not None else "there can be no pool",
        problems=problems,
    )


async def _call_once() -> WorkerStatistics:
    async with open_pool(workers=1) as pool:
        await pool.run_sync(int)
        (worker,) = pool.statistics().workers
    return worker


def _try_isolation() -> str | None:
    try:
        with Pool(1, isolation="interpreter") as pool:
            pool.submit(int).result()
    except Exception as error:  # also what their set-up raises
        return str(error)
    return None
