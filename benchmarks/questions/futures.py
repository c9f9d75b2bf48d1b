"""Very many futures of executors."""

from __future__ import annotations

from functools import partial

from ..contenders import bounds, interpreters, ours, threads
from ..model import Question, Timed
from .calls import calls

AT_ONCE = 100_000

FUTURES = Question(
    name="futures",
    title="What does a future cost, with very many in flight?",
    about=(
        f"{AT_ONCE:,} calls of an empty function are submitted to an executor, then all results are"
        " collected. The floors do the same in one thread: with futures that nothing stands"
        " behind, and with no more than a context for each call. The first is one for executors"
        " whose futures are just those, which dromon's are not. Executors of processes, which take"
        " far longer for so many, are asked for up to 1,000 at once, in another question."
    ),
    loads={f"{AT_ONCE:,} at once": Timed(partial(calls, concurrent=AT_ONCE), step=AT_ONCE)},
    contenders=[
        ours.EXECUTOR,
        ours.ISOLATED_EXECUTOR,
        threads.EXECUTOR,
        interpreters.EXECUTOR,
        bounds.FUTURES,
        bounds.IN_THIS_THREAD,
    ],
    base="ThreadPoolExecutor",
    rounds=10,
)
