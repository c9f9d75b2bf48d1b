"""What the values of a question say: medians, quartiles, ratios, and which ratios to believe."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .measure import AGAIN, Results, twin_of
from .model import Kind


@dataclass(frozen=True)
class Spread:
    """The median of some values, and the quartiles about it."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        return cls(*statistics.quantiles(values, n=4, method="inclusive"))


@dataclass(frozen=True)
class Row:
    """A series and a contender."""

    contender: str
    kind: Kind
    rounds: int
    values: Spread
    ratio: Spread | None
    """How many times as fast as the base of its series, or as small: over one is better than it.
    None where the base was not measured."""
    is_shown: bool
    """Whether the ratio exceeds what two runs of one contender differ by."""
    aim: str


def ratios(base: Sequence[float], values: Sequence[float]) -> Spread:
    """Within each round, where both had the same share of what else the machine did."""
    pairs = zip(base, values, strict=False)
    return Spread.of([b / value if value else math.inf for b, value in pairs])


def noise_of(results: Results, series: str) -> float | None:
    """By what factor the contender that ran twice differs from itself, at the worse quartile.

    The median alone would be close to 1 by luck; a quartile is about two standard errors of the
    median of 15 rounds beyond it.
    """
    twin = twin_of(results.question.contenders)
    if twin is None:
        return None
    first, second = (results.values.get((series, name)) for name in (twin, twin + AGAIN))
    if not first or not second:
        return None
    ratio = ratios(first, second)
    return max(ratio.high, 1 / ratio.low)


def is_shown(ratio: Spread, noise: float | None) -> bool:
    """Three quarters of the rounds agree which is faster, and the median exceeds the noise."""
    if ratio.low <= 1.0 <= ratio.high:
        return False
    return noise is None or max(ratio.median, 1 / ratio.median) > noise


def series_of(results: Results) -> list[str]:
    return list(dict.fromkeys(series for series, _ in results.values))


def rows_of(results: Results, series: str) -> list[Row]:
    """The best first; without the second run, which is only there for the self-check."""
    question, noise = results.question, noise_of(results, series)
    base = results.values.get((series, question.base_of(series)))
    rows = []
    for contender in question.contenders:
        values = results.values.get((series, contender.name))
        if values is None:
            continue
        ratio = None if base is None else ratios(base, values)
        rows.append(
            Row(
                contender=contender.name,
                kind=contender.kind,
                rounds=len(values),
                values=Spread.of(values),
                ratio=ratio,
                is_shown=ratio is not None and is_shown(ratio, noise),
                aim=question.aims.get((series, contender.name), ""),
            )
        )
    return sorted(rows, key=lambda row: row.values.median)


@dataclass(frozen=True)
class Duel:
    """The best of ours beside the best of the peers."""

    series: str
    ours: str
    peer: str
    ratio: Spread
    """Over one is better for ours."""
    is_shown: bool


def duels_of(results: Results) -> Iterator[Duel]:
    """One for each series that some of ours and some peer could do."""
    for series in series_of(results):
        rows = rows_of(results, series)
        ours, peer = (
            next((row.contender for row in rows if row.kind is kind), None)
            for kind in (Kind.OURS, Kind.PEER)
        )
        if ours is not None and peer is not None:
            ratio = ratios(results.values[series, peer], results.values[series, ours])
            yield Duel(series, ours, peer, ratio, is_shown(ratio, noise_of(results, series)))


def refusals(results: Results) -> Iterator[str]:
    """A sentence for each reason why some contender did not do some loads."""
    loads = list(results.question.loads)
    by_reason: dict[tuple[str, str], list[str]] = {}
    for (load, contender), reason in results.refused.items():
        once = contender.removesuffix(AGAIN)
        if once != contender and results.refused.get((load, once)) == reason:
            continue
        by_reason.setdefault((contender, reason), []).append(load)
    for (contender, reason), refused in by_reason.items():
        where = "" if refused == loads else f" ({'; '.join(refused)})"
        yield f"{contender}{where}: {reason}"
