"""Green threads: a function that waits on a worker gives the worker back meanwhile.

For sync functions that run on dromon's workers, however deep. What waits here parks: its worker
goes on with others, and comes back to it when it can go on. The same objects block an ordinary
thread, and refuse the thread of an event loop::

    import dromon, trio
    from dromon import green

    def crawl(url):  # a sync function
        page = dromon.from_thread.run(fetch, url)  # parks
        green.sleep(0.1)  # parks
        return sum(green.map(crawl, links(page)))  # fork-join; parks

    trio.run(dromon.to_thread.run_sync, crawl, "https://example.org")
"""

from ._bridge import BrokenResourceError as BrokenResourceError
from ._bridge import Cancelled as Cancelled
from ._bridge import ClosedResourceError as ClosedResourceError
from ._bridge import EndOfChannel as EndOfChannel
from ._bridge import Event as Event
from ._bridge import Future as Future
from ._bridge import Lock as Lock
from ._bridge import ReceiveChannel as ReceiveChannel
from ._bridge import RLock as RLock
from ._bridge import Scope as Scope
from ._bridge import Semaphore as Semaphore
from ._bridge import SendChannel as SendChannel
from ._bridge import Task as Task
from ._bridge import WouldBlock as WouldBlock
from ._bridge import checkpoint as checkpoint
from ._bridge import current_task as current_task
from ._bridge import open_channel as open_channel
from ._bridge import sleep as sleep
from ._green import map as map
from ._green import open_scope as open_scope
from ._green_dump import dump as dump

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._channel_statistics import ChannelStatistics as ChannelStatistics


def __getattr__(name: str) -> object:
    if name != "ChannelStatistics":
        raise AttributeError(f"module 'dromon.green' has no attribute {name!r}")
    from ._channel_statistics import ChannelStatistics

    return ChannelStatistics
