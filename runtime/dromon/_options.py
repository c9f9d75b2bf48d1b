"""What a pool can be asked to be: the arguments of `dromon.Pool`, checked."""

from __future__ import annotations

import errno
import faulthandler
import operator
import os
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Literal, SupportsFloat, SupportsIndex

import attrs

from . import _saturation, _stuck
from ._arguments import ArgumentsOf
from ._callables import check_sync
from ._cpus import usable_cpus
from ._errors import SpawnError
from ._isolation import choose_isolation
from ._native import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ._stalls import Stall

WORKERS_VARIABLE: Final = "DROMON_WORKERS"
SPAWN_VARIABLE: Final = "DROMON_SPAWN"
DEBUG_VARIABLE: Final = "DROMON_DEBUG"

QUEUE_CAPACITY_MAX: Final = 1 << 20
SIZE_MAX: Final = 1 << 40  # bytes of a stack or a guard; the address space ends soon after

SECONDS_MAX: Final = 10**9  # thirty years
AS_OPENER: Final = -1  # the scheduling policy of the thread that opens the pool

NAME: Final = "dromon"

SPAWN_NAMES: Final = {
    "clone3": lib.DROMON_SPAWN_CLONE3,
    "clone": lib.DROMON_SPAWN_CLONE,
    "pthread": lib.DROMON_SPAWN_PTHREAD,
}


@attrs.frozen
class PoolOptions:
    """Checked options; 0 where the core's default holds."""

    workers: int | None = None  # None: as many as there are usable CPUs when the pool is opened
    name: str = NAME
    queue_capacity: int = 0
    stack_size: int = 0
    guard_size: int = 0
    initializer: Callable[[], object] | None = None
    affinity: tuple[frozenset[int], ...] | None = None
    nice: int = 0
    sched_policy: int = AS_OPENER
    stall_after: float | None = None
    on_stall: Callable[[Stall], object] | None = None
    isolation: str = "thread"  # or "interpreter"
    max_tasks_per_worker: int = 0
    context_vars: tuple[ContextVar[Any], ...] = ()
    warns_of_saturation: bool = True  # where work is queued on purpose there is nothing to say


def check_options(
    workers: int | None = None,
    *,
    name: str = NAME,
    queue_capacity: int | None = None,
    stack_size: int | None = None,
    guard_size: int | None = None,
    initializer: Callable[[], object] | None = None,
    affinity: Iterable[int | Iterable[int]] | None = None,
    nice: int = 0,
    sched_policy: int | None = None,
    stall_after: float | None = None,
    on_stall: Callable[[Stall], object] | None = None,
    isolation: Literal["thread", "interpreter", "auto"] = "thread",
    max_tasks_per_worker: int | None = None,
    context_vars: Iterable[ContextVar[Any]] = (),
) -> PoolOptions:
    """Check the arguments of `dromon.Pool`, which documents them and what is raised.

    This is the one list of them; what `takes_options` decorates has the same.
    """
    cpus = None if affinity is None else _check_affinity(affinity)
    count = None if workers is None else check_workers("workers", workers)
    if cpus is not None and len(cpus) != (count := count or len(cpus)):
        raise ValueError(
            f"affinity must have one entry for each of the {count} workers, not {len(cpus)}"
        )
    if initializer is not None:
        check_sync("initializer", initializer)
    if on_stall is not None:
        check_sync("on_stall", on_stall)
    if on_stall is not None and stall_after is None:
        raise ValueError("on_stall needs stall_after, the seconds after which a call has stalled")
    chosen = choose_isolation(isolation)
    variables = _check_variables(context_vars)
    if chosen == "thread" and isolation != "auto":
        if max_tasks_per_worker is not None:
            raise ValueError("max_tasks_per_worker needs isolation='interpreter'")
        if variables:
            raise ValueError(
                "context_vars needs isolation='interpreter': threads see all context variables"
            )
    return PoolOptions(
        workers=count,
        name=check_name("name", name),
        queue_capacity=_check_capacity(queue_capacity),
        stack_size=_check_size("stack_size", stack_size, lib.DROMON_STACK_SIZE_MIN),
        guard_size=_check_size("guard_size", guard_size, 1),
        initializer=initializer,
        affinity=cpus,
        nice=_check_range("nice", nice, -39, 39),
        sched_policy=_check_policy(sched_policy),
        stall_after=None if stall_after is None else _check_seconds("stall_after", stall_after),
        on_stall=on_stall,
        isolation=chosen,
        max_tasks_per_worker=0
        if max_tasks_per_worker is None
        else _check_range(
            "max_tasks_per_worker", max_tasks_per_worker, 1, 2**63, "an integer or None"
        ),
        context_vars=variables,
    )


takes_options = ArgumentsOf(check_options)


def _check_variables(variables: Iterable[ContextVar[Any]]) -> tuple[ContextVar[Any], ...]:
    checked = tuple(variables)
    for each in checked:
        if not isinstance(each, ContextVar):
            raise TypeError(f"context_vars must be context variables, not {each!r}")
    return checked


def check_workers(argument: str, workers: int) -> int:
    """Check a number of workers that was given as `argument`."""
    return _check_range(argument, workers, 1, lib.DROMON_WORKERS_MAX, "an integer or None")


def default_workers() -> int:
    """How many workers the default pool has unless it is configured."""
    return environment_workers() or usable_cpus()


def environment_workers() -> int | None:
    """How many workers the environment wants the default pool to have; None if it says nothing."""
    text = os.environ.get(WORKERS_VARIABLE)
    if text is None:
        return None
    try:
        return check_workers(WORKERS_VARIABLE, int(text))
    except ValueError:
        raise ValueError(
            f"{WORKERS_VARIABLE} must be a number from 1 to {lib.DROMON_WORKERS_MAX}, not {text!r}"
        ) from None


def is_debugging() -> bool:
    """Whether the environment wants to be told of workers that are stuck."""
    return os.environ.get(DEBUG_VARIABLE) == "1"


def _check_range(name: str, value: int, least: int, most: int, allowed: str = "an integer") -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise TypeError(f"{name} must be {allowed}, not {value!r}")
    if not least <= number <= most:
        raise ValueError(f"{name} must be from {least} to {most}, not {number}")
    return number


def check_name(argument: str, name: str) -> str:
    """Check what the names of workers shall begin with, which was given as `argument`."""
    if not isinstance(name, str):
        raise TypeError(f"{argument} must be a string, not {name!r}")
    if not name or not name.isprintable():
        raise ValueError(f"{argument} must be printable characters, one at least, not {name!r}")
    return name


def _check_size(name: str, size: int | None, least: int) -> int:
    if size is None:
        return 0
    return _check_range(name, size, least, SIZE_MAX, "a number of bytes or None")


def _check_capacity(capacity: int | None) -> int:
    if capacity is None:
        return 0
    number = _check_range("queue_capacity", capacity, 1, QUEUE_CAPACITY_MAX, "an integer or None")
    return max(2, 1 << (number - 1).bit_length())


def _check_affinity(affinity: Iterable[int | Iterable[int]]) -> tuple[frozenset[int], ...]:
    try:
        entries = tuple(
            frozenset(map(operator.index, [entry] if isinstance(entry, SupportsIndex) else entry))
            for entry in affinity
        )
    except TypeError:
        raise TypeError(
            f"affinity must have a CPU or a set of CPUs for each worker, not {affinity!r}"
        ) from None
    if not entries:
        raise ValueError("affinity must have an entry for each worker, and has none")
    for entry in entries:
        if not entry:
            raise ValueError("affinity must not have an empty set of CPUs")
        if min(entry) < 0 or max(entry) >= 8192:
            raise ValueError(f"affinity must name CPUs from 0 to 8191, not {sorted(entry)}")
    return entries


def _check_policy(policy: int | None) -> int:
    if policy is None:
        return AS_OPENER
    allowed = (os.SCHED_OTHER, os.SCHED_BATCH, os.SCHED_IDLE)
    if type(policy) is not int or policy not in allowed:
        raise ValueError(
            "sched_policy must be os.SCHED_OTHER, os.SCHED_BATCH, os.SCHED_IDLE or None,"
            f" not {policy!r}"
        )
    return policy


def _check_seconds(name: str, seconds: float) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, SupportsFloat | SupportsIndex):
        raise TypeError(f"{name} must be a number of seconds, not {seconds!r}")
    number = float(seconds)
    if not 1e-3 <= number <= SECONDS_MAX:
        raise ValueError(f"{name} must be from 0.001 to {SECONDS_MAX} seconds, not {number}")
    return number


def _spawn_wish() -> int:
    name = os.environ.get(SPAWN_VARIABLE)
    if name is None:
        return int(lib.DROMON_SPAWN_AUTO)
    try:
        return int(SPAWN_NAMES[name])
    except KeyError:
        raise ValueError(
            f"{SPAWN_VARIABLE} must be {', '.join(SPAWN_NAMES)} or unset, not {name!r}"
        ) from None


def _placement(options: PoolOptions, keep_alive: list[Any]) -> Any:
    placement = ffi.new(
        "dromon_placement *", {"nice": options.nice, "policy": options.sched_policy}
    )
    if options.affinity is not None:
        words = 1 + max(max(entry) for entry in options.affinity) // 64
        masks = [sum(1 << cpu for cpu in entry) for entry in options.affinity]
        cpus = ffi.new(
            "uint64_t[]",
            [mask >> 64 * word & (1 << 64) - 1 for mask in masks for word in range(words)],
        )
        placement.cpus, placement.cpu_words = cpus, words
        keep_alive.append(cpus)
    keep_alive.append(placement)
    return placement


def _hint(code: int) -> str | None:
    """What to do where the error alone does not tell."""
    if code == errno.EPERM and lib.dromon_clone3_probe() != -errno.EPERM:
        return "a sandbox or a missing capability (CAP_SYS_NICE) forbids the placement asked for"
    if code == errno.ENOSYS and SPAWN_VARIABLE in os.environ:
        return (
            f"the way to make threads that {SPAWN_VARIABLE} asks for cannot be had here: unset it"
        )
    return None


_ON_STALL: Final = "void (*)(void *, uint32_t, uint64_t, uint64_t)"


def open_core(
    options: PoolOptions,
    workers: int,
    worker_table: tuple[int, int, object],
    stall_hook: tuple[int, int] | None,
    saturation_hook: tuple[int, int] | None,
    stuck_hook: tuple[int, int] | None,
) -> Any:
    """Start so many workers, and return the core pool that they belong to, as a counted pointer.

    Raises:
      SpawnError: They could not be started; with errno ECANCELED if one of them declined to go on.
    """
    ops, ops_arg, entrance = worker_table
    name = ffi.new("char[]", options.name.encode())
    keep_alive: list[Any] = [entrance, name]
    config = ffi.new("dromon_pool_config *")
    config.workers = workers
    config.name = name
    config.queue_capacity = options.queue_capacity
    config.stack_size = options.stack_size
    config.guard_size = options.guard_size
    config.spawn = _spawn_wish()
    config.ops = ffi.cast("dromon_ops *", ops)
    config.ops_arg = ffi.cast("void *", ops_arg)
    config.placement = _placement(options, keep_alive)
    if usable_cpus() == 1:  # by its control groups' quota, too, of which the core knows nothing
        config.search_ns = lib.DROMON_SEARCH_NEVER
    if options.stall_after is not None:
        config.stall_ns = int(options.stall_after * 1e9)
    if stall_hook is not None:
        config.on_stall = ffi.cast(_ON_STALL, stall_hook[0])
        config.on_stall_arg = ffi.cast("void *", stall_hook[1])
    if stuck_hook is not None:
        config.stuck_ns = int(_stuck.STUCK_AFTER * 1e9)
        config.on_stuck = ffi.cast(_ON_STALL, stuck_hook[0])
        config.on_stuck_arg = ffi.cast("void *", stuck_hook[1])
    if saturation_hook is not None:
        config.saturated_ns = int(_saturation.SATURATED_AFTER * 1e9)
        config.on_saturated = ffi.cast(
            "void (*)(void *, uint64_t, uint64_t, uint64_t)", saturation_hook[0]
        )
        config.on_saturated_arg = ffi.cast("void *", saturation_hook[1])
    if faulthandler.is_enabled():
        lib.dromon_overflow_report_install()  # before faulthandler's, which then comes in its turn
    core = ffi.new("dromon_pool **")
    result = lib.dromon_pool_open(config, core)
    if result == -errno.EINVAL and options.affinity is not None:
        raise SpawnError(
            errno.EINVAL,
            "affinity names, for one worker at least, only CPUs that this process may not use:"
            f" {', '.join(str(sorted(entry)) for entry in options.affinity)}",
        )
    if result < 0:
        them = "1 worker" if workers == 1 else f"{workers} workers"
        raise SpawnError.from_errno(-result, f"cannot start {them}", _hint(-result))
    return ffi.gc(core[0], lib.dromon_pool_unref)
