"""The tables of a run, for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table

from .measure import twin_of
from .model import Kind
from .summary import duels_of, noise_of, refusals, rows_of, series_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.console import Console

    from .measure import Results
    from .summary import Duel, Row

STYLES = {Kind.OURS: "bold", Kind.PEER: "", Kind.BOUND: "dim"}

SCALES = {
    "second": [(1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")],
    "byte": [(2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B")],
    "integer": [(1.0, "")],
}

TO = "\N{EN DASH}"

BETTER = {"second": "as fast as", "byte": "as small as", "integer": "as low as"}


def number(value: float) -> str:
    """With three digits that count, at least."""
    if abs(value) < 1:
        return f"{value:.3g}"
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:,.{digits}f}"


def with_unit(value: float, unit: str) -> str:
    scale, name = next((one for one in SCALES[unit] if abs(value) >= one[0]), SCALES[unit][-1])
    return f"{number(value / scale)} {name}".rstrip()


def quartiles_text(row: Row, unit: str) -> str:
    """With the unit once, where it is that of both."""
    low, high = with_unit(row.values.low, unit), with_unit(row.values.high, unit)
    number_of_low, _, unit_of_low = low.partition(" ")
    return f"{number_of_low if high.endswith(' ' + unit_of_low) else low}{TO}{high}"


def ratio_text(row: Row) -> str:
    """One that could be noise is marked."""
    if row.ratio is None:
        return "?"
    return f"{'' if row.is_shown else '≈ '}{number(row.ratio.median)}"


def ratio_quartiles_text(row: Row) -> str:
    return "?" if row.ratio is None else f"{number(row.ratio.low)}{TO}{number(row.ratio.high)}"


def contender_text(results: Results, row: Row) -> str:
    """With the number of its rounds if it has not been through all."""
    return row.contender + ("" if row.rounds == results.rounds else f" ({row.rounds} rounds)")


def verdicts(results: Results) -> Iterator[str]:
    """Where the best of ours is ahead of the best of the peers, where behind, and where neither."""
    duels, better = list(duels_of(results)), BETTER[results.question.unit]

    def sentence(start: str, parts: Iterable[str]) -> Iterator[str]:
        if text := "; ".join(parts):
            yield f"{start}: {text}."

    def factor(duel: Duel) -> float:
        return max(duel.ratio.median, 1 / duel.ratio.median)

    yield from sentence(
        "dromon is ahead",
        (
            f"{duel.series} ({duel.ours} is {number(factor(duel))} times {better} {duel.peer})"
            for duel in duels
            if duel.is_shown and duel.ratio.median > 1
        ),
    )
    yield from sentence(
        "dromon is behind",
        (
            f"{duel.series} ({duel.peer} is {number(factor(duel))} times {better} {duel.ours})"
            for duel in duels
            if duel.is_shown and duel.ratio.median < 1
        ),
    )
    yield from sentence(
        "No difference is shown",
        (f"{duel.series} ({duel.ours}, {duel.peer})" for duel in duels if not duel.is_shown),
    )


def cautions(results: Results) -> Iterator[str]:
    """What the self-check says, and what there is too little of."""
    question = results.question
    noises = {series: noise_of(results, series) for series in series_of(results)}
    found = [f"{noise:.2f} ({series})" for series, noise in noises.items() if noise is not None]
    if found:
        yield (
            f"Self-check: {twin_of(question.contenders)} ran twice, and at the worse quartile"
            f" differs from itself by a factor of {'; '.join(found)}. A ratio within that, or with"
            f" 1 between its quartiles, shows nothing and is marked ≈."
        )
    if unchecked := [series for series, noise in noises.items() if noise is None]:
        yield (
            f"No self-check of {'; '.join(unchecked)}: nothing ran twice. A ratio with 1 between"
            " its quartiles shows nothing and is marked ≈."
        )
    if results.rounds < question.rounds:
        yield (
            f"Rounds: {results.rounds} instead of {question.rounds}; quartiles, ratios and the"
            " self-check of so few can be luck."
        )


def table_of(results: Results, series: str) -> Table:
    question = results.question
    rows = rows_of(results, series)
    aims = "; ".join(f"{row.contender} {row.aim}" for row in rows if row.aim)
    table = Table(
        title=f"{question.title}\n{series}",
        caption=f"aims: {aims}" if aims else None,
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    # Where lines are short, names are continued on the next rather than cut.
    table.add_column("contender", overflow="fold")
    table.add_column("median", justify="right", no_wrap=True)
    table.add_column("quartiles", justify="right", no_wrap=True)
    table.add_column(f"times {question.base_of(series)}", justify="right", overflow="fold")
    table.add_column("quartiles", justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            contender_text(results, row),
            with_unit(row.values.median, question.unit),
            quartiles_text(row, question.unit),
            ratio_text(row),
            ratio_quartiles_text(row),
            style=STYLES[row.kind],
        )
    return table


def show(results: Results, console: Console) -> None:
    for series in series_of(results):
        console.print(table_of(results, series))
    console.print(results.question.about)
    for sentence in (*verdicts(results), *cautions(results)):
        console.print(sentence)
    for sentence in refusals(results):
        console.print(f"Not measured: {sentence}")
    console.print()
