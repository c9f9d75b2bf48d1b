"""Run synchronous callables on worker threads: `trio.to_thread`'s names on dromon's default pool."""

from ._to_thread import run_sync as run_sync
