"""Functions for tests of code that makes calls."""

from ._testing import active_thread_count as active_thread_count
from ._testing import wait_all_threads_completed as wait_all_threads_completed
