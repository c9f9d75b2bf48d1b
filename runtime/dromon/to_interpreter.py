"""Run synchronous callables in interpreters that have a GIL of their own, on a default pool."""

from ._bridge import is_main_interpreter as _is_main_interpreter

if _is_main_interpreter():
    from ._to_interpreter import (
        current_default_interpreter_limiter as current_default_interpreter_limiter,
    )
    from ._to_interpreter import run_sync as run_sync
else:
    from ._stand_ins import stand_ins as _stand_ins

    globals().update(_stand_ins(__name__, "current_default_interpreter_limiter run_sync"))
