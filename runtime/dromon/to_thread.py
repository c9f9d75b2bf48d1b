"""Run synchronous callables on worker threads: `trio.to_thread`'s names on the default pool."""

from ._to_thread import current_default_thread_limiter as current_default_thread_limiter
from ._to_thread import run_sync as run_sync
