"""The page of a run: a plot and a table for each question, in one file that needs no network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import plotly.graph_objects as plot
from jinja2 import Environment, PackageLoader, select_autoescape
from plotly.offline import get_plotlyjs

from . import report
from .model import Kind
from .summary import refusals, rows_of, series_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from .measure import Results

# Told apart by their shapes, too.
MARKERS: Mapping[Kind, Mapping[str, object]] = {
    Kind.OURS: {"color": "#1d4ed8", "symbol": "circle", "size": 10},
    Kind.PEER: {"color": "#6b7280", "symbol": "square", "size": 8},
    Kind.BOUND: {"color": "#b45309", "symbol": "diamond", "size": 9},
}
AXIS = {
    "second": "seconds, less is better",
    "byte": "bytes, less is better",
    "integer": "less is better",
}
LEGEND = {Kind.OURS: "dromon", Kind.PEER: "peers", Kind.BOUND: "bounds"}


def plot_of(results: Results, series: str) -> str:
    """Medians as dots on a logarithmic axis, with bars from quartile to quartile."""
    unit, rows = results.question.unit, rows_of(results, series)
    figure = plot.Figure()
    for kind in Kind:
        own = [row for row in rows if row.kind is kind]
        if not own:
            continue
        figure.add_trace(
            plot.Scatter(
                name=LEGEND[kind],
                x=[row.values.median for row in own],
                y=[row.contender for row in own],
                mode="markers",
                marker=MARKERS[kind],
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": [row.values.high - row.values.median for row in own],
                    "arrayminus": [row.values.median - row.values.low for row in own],
                },
                text=[
                    f"{report.with_unit(row.values.median, unit)}, {report.ratio_text(row)} times"
                    for row in own
                ],
                hovertemplate="%{y}: %{text}<extra></extra>",
            )
        )
    figure.update_layout(
        template="simple_white",
        height=110 + 20 * len(rows),
        margin={"l": 0, "r": 8, "t": 8, "b": 40},
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 1, "xanchor": "right"},
        xaxis={
            "type": "log",
            "title": AXIS[unit],
            "exponentformat": "SI",
            "minexponent": 0,
            "showgrid": True,
            "fixedrange": True,
        },
        yaxis={
            "categoryorder": "array",
            "categoryarray": [row.contender for row in reversed(rows)],
            "automargin": True,
            "fixedrange": True,
        },
    )
    html: str = figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        config={"displayModeBar": False, "responsive": True},
    )
    return html


def write(path: Path, all_results: Sequence[Results], description: Mapping[str, str]) -> None:
    environment = Environment(
        loader=PackageLoader(__package__ or "benchmarks", "."), autoescape=select_autoescape()
    )
    environment.globals.update(
        series_of=series_of, rows_of=rows_of, refusals=refusals, plot_of=plot_of, report=report
    )
    page = environment.get_template("page.html")
    text = page.render(all_results=all_results, description=description, plotly=get_plotlyjs())
    path.write_text(text, encoding="utf-8")
