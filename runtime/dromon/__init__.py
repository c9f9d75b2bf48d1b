"""dromon: a task runtime for trio programs that have CPU-bound work.

A fixed pool of OS threads runs Python callables; trio tasks await the results::

    import dromon, trio

    async def main():
        total = await dromon.to_thread.run_sync(sum, range(1000))
        async with dromon.open_pool(workers=4) as pool:
            total = await pool.run_sync(sum, range(1000))

    trio.run(main)
"""

from . import _platform

_platform.check()

from . import from_thread as from_thread  # noqa: E402
from . import green as green  # noqa: E402
from . import testing as testing  # noqa: E402
from . import to_interpreter as to_interpreter  # noqa: E402
from . import to_thread as to_thread  # noqa: E402
from ._bridge import is_main_interpreter as _is_main_interpreter  # noqa: E402
from ._building import get_include as get_include  # noqa: E402
from ._building import get_library as get_library  # noqa: E402
from ._errors import ClosedPoolError as ClosedPoolError  # noqa: E402
from ._errors import Interrupted as Interrupted  # noqa: E402
from ._errors import IsolationError as IsolationError  # noqa: E402
from ._errors import QueueFull as QueueFull  # noqa: E402
from ._errors import SpawnError as SpawnError  # noqa: E402

if _is_main_interpreter():
    from importlib.metadata import version as _version

    from ._executor import Executor as Executor
    from ._explain import Explanation as Explanation
    from ._explain import explain as explain
    from ._open_map import MapResults as MapResults
    from ._pickling import WritableBuffer as WritableBuffer
    from ._pickling import writable as writable
    from ._pool import Pool as Pool
    from ._pool import configure_default_pool as configure_default_pool
    from ._pool import open_pool as open_pool
    from ._remote import RemoteError as RemoteError
    from ._stalls import Stall as Stall
    from ._statistics import GreenStatistics as GreenStatistics
    from ._statistics import Histogram as Histogram
    from ._statistics import PoolStatistics as PoolStatistics
    from ._statistics import WorkerStatistics as WorkerStatistics

    __version__ = _version("dromon")
else:
    from ._stand_ins import load_late as _load_late
    from ._stand_ins import stand_ins as _stand_ins

    globals().update(
        _stand_ins(
            __name__,
            "Executor Explanation GreenStatistics Histogram MapResults Pool PoolStatistics Stall"
            " WorkerStatistics configure_default_pool explain open_pool",
        ),
        __getattr__=_load_late,
    )
