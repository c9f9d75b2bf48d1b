"""Functions that call from a worker back into trio, as `trio.from_thread`."""

from ._bridge import is_main_interpreter as _is_main_interpreter

if not _is_main_interpreter():
    from ._isolated_from_thread import check_cancelled as check_cancelled
    from ._isolated_from_thread import run as run
    from ._isolated_from_thread import run_sync as run_sync
else:
    from ._from_thread import check_cancelled as check_cancelled
    from ._from_thread import run as run
    from ._from_thread import run_sync as run_sync
