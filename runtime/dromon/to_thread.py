"""Run synchronous callables on worker threads: `trio.to_thread`'s names on the default pool."""

from ._bridge import is_main_interpreter as _is_main_interpreter

if _is_main_interpreter():
    from ._to_thread import current_default_thread_limiter as current_default_thread_limiter
    from ._to_thread import run_sync as run_sync
else:
    from ._stand_ins import stand_ins as _stand_ins

    globals().update(_stand_ins(__name__, "current_default_thread_limiter run_sync"))
