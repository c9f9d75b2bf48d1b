"""Functions for tests of code that makes calls."""

from ._bridge import is_main_interpreter as _is_main_interpreter

if _is_main_interpreter():
    from ._testing import active_thread_count as active_thread_count
    from ._testing import wait_all_threads_completed as wait_all_threads_completed
else:
    from ._stand_ins import stand_ins as _stand_ins

    globals().update(_stand_ins(__name__, "active_thread_count wait_all_threads_completed"))
