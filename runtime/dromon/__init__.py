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

from importlib.metadata import version as _version  # noqa: E402

from . import from_thread as from_thread  # noqa: E402
from . import testing as testing  # noqa: E402
from . import to_thread as to_thread  # noqa: E402
from ._building import get_include as get_include  # noqa: E402
from ._building import get_library as get_library  # noqa: E402
from ._errors import ClosedPoolError as ClosedPoolError  # noqa: E402
from ._errors import Interrupted as Interrupted  # noqa: E402
from ._errors import QueueFull as QueueFull  # noqa: E402
from ._errors import SpawnError as SpawnError  # noqa: E402
from ._executor import Executor as Executor  # noqa: E402
from ._open_map import MapResults as MapResults  # noqa: E402
from ._pool import Pool as Pool  # noqa: E402
from ._pool import configure_default_pool as configure_default_pool  # noqa: E402
from ._pool import open_pool as open_pool  # noqa: E402
from ._stalls import Stall as Stall  # noqa: E402
from ._statistics import Histogram as Histogram  # noqa: E402
from ._statistics import PoolStatistics as PoolStatistics  # noqa: E402
from ._statistics import WorkerStatistics as WorkerStatistics  # noqa: E402

__version__ = _version("dromon")
