from collections.abc import Callable
from contextvars import Context
from typing import Any, final

from trio.lowlevel import Task

def worker_table() -> tuple[int, int]: ...

@final
class Call:
    waiter: Task | Callable[[], object] | None
    def withdraw(self) -> bool: ...
    def abandon(self) -> bool: ...
    def unwrap(self) -> Any: ...

@final
class Port:
    def __init__(self) -> None: ...
    def fileno(self) -> int: ...
    def take(self, most: int, /) -> list[Call]: ...
    def close(self) -> None: ...

@final
class Pool:
    def __init__(self, address: int, /) -> None: ...
    def submit(
        self,
        port: Port,
        waiter: Task,
        context: Context,
        function: Callable[..., object],
        arguments: tuple[object, ...],
        /,
    ) -> Call | None: ...
    def close(
        self,
        port: Port,
        waiter: Task,
        context: Context,
        function: Callable[..., object],
        arguments: tuple[object, ...],
        /,
    ) -> Call | None: ...
