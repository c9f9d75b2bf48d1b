"""Functions that call from a worker back into trio, as `trio.from_thread`."""

from ._from_thread import check_cancelled as check_cancelled
from ._from_thread import run as run
from ._from_thread import run_sync as run_sync
