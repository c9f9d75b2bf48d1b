"""What test_green_sync_in_isolates runs in workers with an interpreter of their own."""

from __future__ import annotations

from dromon import green


def wait_for_an_event() -> int:
    event = green.Event()
    with green.open_scope() as scope:
        waits = [scope.spawn(event.wait) for _ in range(5)]
        scope.spawn(event.set)
    return sum(wait.done() for wait in waits)


def take_turns_with(kind: str) -> list[int]:
    lock: green.Lock | green.RLock | green.Semaphore
    lock = green.Semaphore(1) if kind == "Semaphore" else getattr(green, kind)()
    order: list[int] = []

    def turn(number: int) -> None:
        with lock:
            order.append(number)
            green.checkpoint()
            order.append(number)

    with green.open_scope() as scope:
        for number in range(5):
            scope.spawn(turn, number)
    return order


def get_what_another_sets() -> str:
    future = green.Future[str]()
    with green.open_scope() as scope:
        wait = scope.spawn(future.result)
        scope.spawn(future.set_result, "value")
    return wait.result()


def receive_what_another_sends(size: float) -> list[int]:
    sender, receiver = green.open_channel(size)

    def send() -> None:
        with sender:
            for number in range(100):
                sender.send(number)

    with green.open_scope() as scope:
        scope.spawn(send)
        received = scope.spawn(list, receiver)
    assert sender.statistics().open_send_channels == 0
    return received.result()


def give_up() -> tuple[str, bool, int]:
    event, semaphore = green.Event(), green.Semaphore(0)

    def wait_in_vain() -> str:
        try:
            event.wait(timeout=0.01)
        except TimeoutError as error:
            return str(error)
        return ""

    with green.open_scope() as scope:
        late, cancelled = scope.spawn(wait_in_vain), scope.spawn(semaphore.acquire)
        late.result()
        scope.cancel()
    semaphore.release()
    return late.result(), cancelled.cancelled(), semaphore.value
