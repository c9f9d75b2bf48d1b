"""The values of a run, in a file of pyperf's format.

``python -m pyperf compare_to before.json after.json`` compares two of them;
``python -m pyperf stats`` and ``hist`` show one. Beside the values, in the order of the rounds, are
the places that their turns had in each round, and who was not measured, and why.

Source: https://pyperf.readthedocs.io/en/latest/api.html
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pyperf

from .measure import Results
from .summary import refusals


def write(path: Path, all_results: Iterable[Results], description: Mapping[str, str]) -> None:
    benchmarks = []
    for results in all_results:
        question = results.question
        for (series, contender), values in results.values.items():
            about = {
                "name": f"{question.name}: {series}: {contender}",
                "unit": question.unit,
                "base": question.base_of(series),
                "places": " ".join(map(str, results.places[series, contender])),
                "not_measured": "; ".join(refusals(results)) or "none",
                **{key.replace(" ", "_"): value for key, value in description.items()},
            }
            run = pyperf.Run(values, metadata=about, collect_metadata=False)
            benchmarks.append(pyperf.Benchmark([run]))
    if benchmarks:  # the format has no place for none
        pyperf.BenchmarkSuite(benchmarks).dump(str(path), replace=True)
