"""What can be known of a channel of `dromon.green`."""

from __future__ import annotations

from typing import NamedTuple


class ChannelStatistics(NamedTuple):
    """What a channel has in it, and who waits. Read in one step.

    Attributes:
      current_buffer_used (int): Values that were sent, and are kept until somebody receives them.
      max_buffer_size (int | float): How many it can keep; `math.inf`: any number.
      open_send_channels (int): Sending ends that are open.
      open_receive_channels (int): Receiving ends that are open.
      tasks_waiting_send (int): Tasks and threads that wait to send.
      tasks_waiting_receive (int): Tasks and threads that wait to receive.
    """

    current_buffer_used: int
    max_buffer_size: int | float
    open_send_channels: int
    open_receive_channels: int
    tasks_waiting_send: int
    tasks_waiting_receive: int
