"""The process of one contender: opens its way, and measures loads as it is told to.

`main` has three arguments: the question, the contender and the number of workers. It reads the name
of a load, in JSON, from each line of standard input, and answers each with a line of JSON. What a
contender prints goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any, TextIO

from .model import Refused, Timed, reason
from .questions import QUESTIONS

if TYPE_CHECKING:
    from .model import Contender, Load, Question, Way

LEAST_SECONDS = 0.1
"""Of a turn whose length can be chosen."""


async def find_count(load: Load, way: Way) -> int:
    """How many units take long enough; finding out is the warm-up."""
    count = load.step if isinstance(load, Timed) else 1
    await load.values(way, count)  # the first may take longer
    if not isinstance(load, Timed):
        return count
    while True:
        seconds = (await load.values(way, count))[""] * count
        if seconds >= LEAST_SECONDS:
            return count
        more = count * min(10.0, 1.2 * LEAST_SECONDS / max(seconds, 1e-9))
        count = max(count + load.step, int(more) // load.step * load.step)


async def answer(requests: TextIO, answers: TextIO, question: Question, way: Way) -> None:
    loads = question.loads
    # What is new for each turn is measured as it comes, without a warm-up.
    counts = dict.fromkeys(loads, 1) if question.anew else {}
    for line in requests:
        name = json.loads(line)
        reply: dict[str, Any]
        try:
            if name not in counts:
                counts[name] = await find_count(loads[name], way)
            values = await loads[name].values(way, counts[name])
            if any(value <= 0.0 for value in values.values()):
                raise Refused(f"it measured nothing that can be compared: {values}")
            reply = {"values": values}
        except Exception as error:
            reply = {"refused": reason(error)}
        print(json.dumps(reply), file=answers, flush=True)


async def serve(
    requests: TextIO, answers: TextIO, question: Question, contender: Contender, workers: int
) -> None:
    async with contender.open(workers) as way:
        print(json.dumps({"values": {}}), file=answers, flush=True)
        await answer(requests, answers, question, way)


def main() -> None:
    question_name, contender_name, workers = sys.argv[1:]
    question = QUESTIONS[question_name]
    contender = next(one for one in question.contenders if one.name == contender_name)
    requests, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    warnings.simplefilter("ignore")  # they are for users; a refusal is an exception
    try:
        contender.run(serve, requests, answers, question, contender, int(workers))
    except BaseException as error:
        # Before the way was open, its first answer; afterwards nobody reads it.
        print(json.dumps({"refused": reason(error)}), file=answers, flush=True)
        sys.exit(1)
