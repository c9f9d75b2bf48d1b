"""Channels of dromon.green, by which green threads and other threads hand each other values."""

from __future__ import annotations

import gc
import math
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import trio

import dromon
from dromon import green


def look_until(true: Callable[[], bool]) -> None:
    """For what others are about to do."""
    while not true():
        time.sleep(0.001)


def wait_for_receivers(channel: green.SendChannel[int], count: int) -> None:
    look_until(lambda: channel.statistics().tasks_waiting_receive == count)


def wait_for_senders(channel: green.ReceiveChannel[int], count: int) -> None:
    look_until(lambda: channel.statistics().tasks_waiting_send == count)


def test_values_come_in_the_order_in_which_they_were_sent() -> None:
    sender, receiver = green.open_channel(math.inf)
    for number in range(100):
        sender.send(number)
    assert [receiver.receive() for _ in range(100)] == list(range(100))


def test_the_buffer_stays_in_order_as_it_grows_and_wraps() -> None:
    sender, receiver = green.open_channel(math.inf)
    sent = received = 0
    for more in range(1, 30):
        for _ in range(more):
            sender.send_nowait(sent)
            sent += 1
        for _ in range(more // 2):
            assert receiver.receive_nowait() == received
            received += 1
    sender.close()
    assert list(receiver) == list(range(received, sent))


def test_values_are_the_same_objects(place: ThreadPoolExecutor) -> None:
    sender, receiver = green.open_channel(0)
    value = object()
    sending = place.submit(sender.send, value)
    assert receiver.receive() is value
    assert sending.result() is None


@pytest.mark.parametrize("size", [0, 1, 3, math.inf])
def test_one_sends_what_another_receives(place: ThreadPoolExecutor, size: float) -> None:
    sender, receiver = green.open_channel(size)

    def send() -> None:
        with sender:
            for number in range(100):
                sender.send(number)

    sending, receiving = place.submit(send), place.submit(list, receiver)
    assert receiving.result() == list(range(100))
    sending.result()


@pytest.mark.parametrize("size", [0, 2])
def test_each_value_is_received_once(place: ThreadPoolExecutor, size: int) -> None:
    sender, receiver = green.open_channel(size)

    def send(clone: green.SendChannel[int], first: int) -> None:
        with clone:
            for number in range(first, first + 50):
                clone.send(number)

    def receive(clone: green.ReceiveChannel[int]) -> list[int]:
        with clone:
            return list(clone)

    with sender:
        sendings = [place.submit(send, sender.clone(), first) for first in range(0, 200, 50)]
    receivings = [place.submit(receive, receiver.clone()) for _ in range(4)]
    for sending in sendings:
        sending.result()
    received = [receiving.result() for receiving in receivings]
    assert sorted(number for each in received for number in each) == list(range(200))


def test_without_a_buffer_a_sender_waits_until_it_is_received(place: ThreadPoolExecutor) -> None:
    sender, receiver = green.open_channel(0)
    sending = place.submit(sender.send, 1)
    wait_for_senders(receiver, 1)
    assert not sending.done()
    assert receiver.receive() == 1
    sending.result()


def test_a_sender_waits_while_the_buffer_is_full(place: ThreadPoolExecutor) -> None:
    sender, receiver = green.open_channel(2)
    sender.send(1)
    sender.send(2)
    sending = place.submit(sender.send, 3)
    wait_for_senders(receiver, 1)
    assert [receiver.receive_nowait() for _ in range(3)] == [1, 2, 3]
    sending.result()


def test_who_has_waited_longest_receives_first(place: ThreadPoolExecutor) -> None:
    sender, receiver = green.open_channel(0)
    receivings = []
    for count in range(1, 6):
        receivings.append(place.submit(receiver.receive))
        wait_for_receivers(sender, count)
    for number in range(5):
        sender.send_nowait(number)
    assert [receiving.result() for receiving in receivings] == list(range(5))


def test_what_has_waited_longest_is_received_first(place: ThreadPoolExecutor) -> None:
    sender, receiver = green.open_channel(1)
    sender.send(0)
    for number in range(1, 5):
        place.submit(sender.send, number)
        wait_for_senders(receiver, number)
    assert [receiver.receive() for _ in range(5)] == list(range(5))


def test_send_nowait_does_not_wait() -> None:
    sender, receiver = green.open_channel(1)
    sender.send_nowait(1)
    with pytest.raises(green.WouldBlock, match="the channel is full"):
        sender.send_nowait(2)
    assert receiver.receive() == 1


def test_receive_nowait_does_not_wait() -> None:
    _sender, receiver = green.open_channel(1)
    with pytest.raises(green.WouldBlock, match="the channel is empty"):
        receiver.receive_nowait()


def test_a_send_that_takes_too_long_sends_nothing(place: ThreadPoolExecutor) -> None:
    sender, receiver = green.open_channel(0)
    with pytest.raises(TimeoutError, match=r"SendChannel\.send\(\) timed out"):
        place.submit(sender.send, 1, 0.01).result()
    with pytest.raises(TimeoutError):
        sender.send(2, timeout=0)
    with pytest.raises(green.WouldBlock):
        receiver.receive_nowait()


def test_a_receive_that_takes_too_long_takes_nothing(place: ThreadPoolExecutor) -> None:
    sender, receiver = green.open_channel(1)
    with pytest.raises(TimeoutError, match=r"ReceiveChannel\.receive\(\) timed out"):
        place.submit(receiver.receive, 0.01).result()
    sender.send_nowait(1)
    assert receiver.receive(timeout=0) == 1


def test_what_was_sent_can_be_received_after_the_last_sender_is_closed() -> None:
    sender, receiver = green.open_channel(2)
    with sender:
        sender.send(1)
    assert receiver.receive() == 1
    with pytest.raises(green.EndOfChannel, match="all sending ends of the channel are closed"):
        receiver.receive()
    with pytest.raises(green.EndOfChannel):
        receiver.receive_nowait()
    assert list(receiver) == []


def test_closing_the_last_sender_ends_all_who_wait_to_receive(place: ThreadPoolExecutor) -> None:
    sender, receiver = green.open_channel(0)
    clone = sender.clone()
    receivings = [place.submit(receiver.receive) for _ in range(3)]
    iterating = place.submit(list, receiver)
    wait_for_receivers(sender, 4)
    sender.close()
    assert clone.statistics().tasks_waiting_receive == 4
    clone.close()
    for receiving in receivings:
        with pytest.raises(green.EndOfChannel):
            receiving.result()
    assert iterating.result() == []


def test_closing_the_last_receiver_breaks_it_for_all_who_wait_to_send(
    place: ThreadPoolExecutor,
) -> None:
    sender, receiver = green.open_channel(0)
    clone = receiver.clone()
    sendings = [place.submit(sender.send, number) for number in range(3)]
    wait_for_senders(receiver, 3)
    receiver.close()
    assert sender.statistics().tasks_waiting_send == 3
    clone.close()
    for sending in sendings:
        with pytest.raises(green.BrokenResourceError, match="all receiving ends"):
            sending.result()
    with pytest.raises(green.BrokenResourceError):
        sender.send_nowait(1)
    with pytest.raises(green.BrokenResourceError):
        sender.send(1)


def test_closing_the_last_receiver_drops_what_was_sent() -> None:
    class Value:
        pass

    sender, receiver = green.open_channel(1)
    value = Value()
    reference = weakref.ref(value)
    sender.send(value)
    del value
    receiver.close()
    gc.collect()
    assert reference() is None
    assert sender.statistics().current_buffer_used == 0


def test_a_closed_end_is_refused() -> None:
    sender, receiver = green.open_channel(1)
    sender.close()
    receiver.close()
    sender.close()
    receiver.close()
    refused: list[Callable[[], object]] = [
        lambda: sender.send(1),
        lambda: sender.send_nowait(1),
        sender.clone,
        receiver.receive,
        receiver.receive_nowait,
        receiver.clone,
        lambda: next(receiver),
    ]
    for operation in refused:
        with pytest.raises(green.ClosedResourceError, match="this end of the channel is closed"):
            operation()


def test_closing_a_sender_ends_those_who_wait_at_it_alone(place: ThreadPoolExecutor) -> None:
    sender, receiver = green.open_channel(0)
    clone = sender.clone()
    one, other = place.submit(sender.send, 1), place.submit(clone.send, 2)
    wait_for_senders(receiver, 2)
    sender.close()
    with pytest.raises(green.ClosedResourceError):
        one.result()
    assert receiver.receive() == 2
    other.result()


def test_closing_a_receiver_ends_those_who_wait_at_it_alone(place: ThreadPoolExecutor) -> None:
    sender, receiver = green.open_channel(0)
    clone = receiver.clone()
    one, other = place.submit(receiver.receive), place.submit(clone.receive)
    wait_for_receivers(sender, 2)
    receiver.close()
    with pytest.raises(green.ClosedResourceError):
        one.result()
    sender.send_nowait(1)
    assert other.result() == 1


def test_an_end_is_closed_at_the_end_of_a_with_statement() -> None:
    sender, receiver = green.open_channel(0)
    with sender as same_sender, receiver as same_receiver:
        assert same_sender is sender
        assert same_receiver is receiver
    statistics = sender.statistics()
    assert (statistics.open_send_channels, statistics.open_receive_channels) == (0, 0)


def test_statistics_tell_what_is_in_it_and_who_waits(place: ThreadPoolExecutor) -> None:
    sender, receiver = green.open_channel(1)
    clone = sender.clone()
    sender.send(1)
    sending = place.submit(clone.send, 2)
    wait_for_senders(receiver, 1)
    assert receiver.statistics() == sender.statistics() == (1, 1, 2, 1, 1, 0)
    assert [receiver.receive(), receiver.receive()] == [1, 2]
    sending.result()
    assert sender.statistics() == (0, 1, 2, 1, 0, 0)


def test_a_channel_without_a_bound_says_so() -> None:
    sender, _receiver = green.open_channel(max_buffer_size=math.inf)
    assert sender.statistics().max_buffer_size == math.inf


@pytest.mark.parametrize("size", [1.0, -math.inf, "1", None])
def test_sizes_that_are_not_whole_numbers_are_refused(size: float) -> None:
    with pytest.raises(TypeError, match=r"max_buffer_size must be an int or math\.inf"):
        green.open_channel(size)


def test_sizes_below_zero_are_refused() -> None:
    with pytest.raises(ValueError, match="max_buffer_size must be >= 0"):
        green.open_channel(-1)


@pytest.mark.parametrize("kind", [green.SendChannel, green.ReceiveChannel])
def test_ends_are_made_by_open_channel_alone(kind: type) -> None:
    with pytest.raises(TypeError, match="cannot create"):
        kind()
    assert "green" in repr(kind[int])  # type: ignore[index]


def test_a_send_needs_a_value() -> None:
    sender, _receiver = green.open_channel(1)
    with pytest.raises(TypeError, match=r"SendChannel\.send\(\) needs a value"):
        sender.send()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"SendChannel\.send\(\) got more arguments"):
        sender.send(1, 2, 3)  # type: ignore[call-arg]


def test_what_is_kept_goes_with_the_channel() -> None:
    class Value:
        end: object

    sender, receiver = green.open_channel(math.inf)
    value, cyclic = Value(), Value()
    cyclic.end = receiver
    references = [weakref.ref(value), weakref.ref(cyclic)]
    sender.send(value)
    sender.send(cyclic)
    del sender, receiver, value, cyclic
    gc.collect()
    assert [reference() for reference in references] == [None, None]


def test_no_reference_is_left_behind(place: ThreadPoolExecutor) -> None:
    class Value:
        pass

    sender, receiver = green.open_channel(0)
    values = [Value() for _ in range(10)]
    references = [weakref.ref(value) for value in values]

    def send() -> None:
        while values:
            sender.send(values.pop())
        with pytest.raises(TimeoutError):
            sender.send(Value(), timeout=0)

    sending = place.submit(send)
    for _ in range(10):
        receiver.receive()
    sending.result()
    gc.collect()
    assert [reference() for reference in references] == [None] * 10


async def test_the_thread_of_an_event_loop_is_refused_and_told_of_trio() -> None:
    sender, receiver = green.open_channel(1)
    with pytest.raises(RuntimeError, match=r"trio\.open_memory_channel"):
        sender.send(1)
    sender.send_nowait(1)
    with pytest.raises(RuntimeError, match=r"trio\.open_memory_channel"):
        receiver.receive()
    with pytest.raises(RuntimeError, match=r"trio\.open_memory_channel"):
        next(receiver)
    assert receiver.receive_nowait() == 1


async def test_a_cancelled_one_sends_nothing() -> None:
    sender, receiver = green.open_channel(0)

    async def send() -> None:
        await pool.run_sync(sender.send, 1)

    async with dromon.open_pool(1) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(send)
        while sender.statistics().tasks_waiting_send == 0:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert sender.statistics().tasks_waiting_send == 0
    with pytest.raises(green.WouldBlock):
        receiver.receive_nowait()


async def test_a_cancelled_one_receives_nothing() -> None:
    sender, receiver = green.open_channel(1)

    async def receive() -> None:
        await pool.run_sync(receiver.receive)

    async with dromon.open_pool(1) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        while sender.statistics().tasks_waiting_receive == 0:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    sender.send_nowait(1)
    assert receiver.receive_nowait() == 1


def test_nothing_is_lost_to_those_who_give_up(place: ThreadPoolExecutor) -> None:
    sender, receiver = green.open_channel(0)
    given_up = threading.Event()

    def receive() -> list[int]:
        received: list[int] = []
        while not given_up.is_set():
            try:
                received.append(receiver.receive(timeout=0.0005))
            except TimeoutError:
                pass
            except green.EndOfChannel:
                break
        return received

    def send() -> list[int]:
        sent = []
        for number in range(300):
            try:
                sender.send(number, timeout=0.0005)
                sent.append(number)
            except TimeoutError:
                pass
        sender.close()
        return sent

    receivings = [place.submit(receive) for _ in range(2)]
    sent = place.submit(send).result()
    received = [number for receiving in receivings for number in receiving.result()]
    assert sorted(received) == sent
