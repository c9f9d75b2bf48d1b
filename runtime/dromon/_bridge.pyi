from collections.abc import Callable
from typing import Any, final

from trio.lowlevel import Abort, Task

def worker_table() -> tuple[int, int]: ...
def stall_hook(callback: Callable[[int, int, float], object], /) -> tuple[int, int]: ...

@final
class Call:
    waiter: Task | Callable[[], object] | None
    after_abandoned: Callable[[], object] | None
    def abort(self, raise_cancel: object, /) -> Abort: ...
    def unwrap(self) -> Any: ...

@final
class Port:
    @property
    def waiting(self) -> int: ...
    def __init__(self, abort_succeeded: Abort, abort_failed: Abort) -> None: ...
    def fileno(self) -> int: ...
    def take(self, most: int, /) -> list[Call]: ...
    def post(self, callback: Callable[[], object], /) -> None: ...
    def close(self) -> None: ...

@final
class Pool:
    def __init__(self, address: int, /) -> None: ...
    def submit(
        self,
        port: Port,
        waiter: Task | None,
        function: Callable[..., object],
        arguments: tuple[object, ...],
        abandon_on_abort: bool,
        /,
    ) -> Call | None: ...
    def submit_native(
        self,
        port: Port,
        waiter: Task | None,
        fn: int,
        arg: int,
        kept_alive: object,
        abandon_on_abort: bool,
        /,
    ) -> Call | None: ...
    def start(
        self, function: Callable[..., object], arguments: tuple[object, ...], wait: bool, /
    ) -> bool | None: ...
    def close(
        self,
        port: Port,
        waiter: Task | None,
        function: Callable[..., object],
        arguments: tuple[object, ...],
        abandon_on_abort: bool,
        /,
    ) -> Call | None: ...
