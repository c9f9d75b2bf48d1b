"""The framework of benchmarks/, with contenders that do what is wanted of them."""

# ruff: noqa: E402  # it is skipped before it imports what is not there

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import time
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from select import select
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("jinja2", reason="the group bench is not installed: no jinja2")
pytest.importorskip("plotly", reason="the group bench is not installed: no plotly")
pyperf = pytest.importorskip("pyperf", reason="the group bench is not installed: no pyperf")

from rich.console import Console
from rich.progress import Progress

from benchmarks import __main__ as command
from benchmarks import measure, page, process, report, results_file, summary, workloads
from benchmarks.measure import AGAIN, Results
from benchmarks.model import Timed, Way, reason
from benchmarks.questions import QUESTIONS

REAL = dict(QUESTIONS)

import benchmark_fakes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.model import Question

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes of contenders have the fakes, too."""
    monkeypatch.setattr(measure, "START", f"import {benchmark_fakes.__name__}; {measure.START}")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'tests'}")


def measured(name: str, rounds: int = 1, seed: int = 1) -> Results:
    progress = Progress(console=Console(file=StringIO()))
    return measure.measure(QUESTIONS[name], 1, rounds, random.Random(seed), progress)


def made_up(name: str, **values: Sequence[float]) -> Results:
    """As if these had been measured of the load `steady`; `ours_again` is the second run's."""
    results = Results(QUESTIONS[name], max(map(len, values.values())))
    for contender, of_rounds in values.items():
        for value in of_rounds:
            by = contender.replace("_again", AGAIN)
            results.add("steady", by, 0, {"values": {"": value}})
    return results


def row_of(results: Results, contender: str) -> summary.Row:
    return next(row for row in summary.rows_of(results, "steady") if row.contender == contender)


def shown(results: Results, width: int = 300) -> str:
    file = StringIO()
    report.show(results, Console(file=file, width=width, markup=False, highlight=False))
    return file.getvalue()


# ---- Contenders that fail ------------------------------------------------------------------------


def test_a_contender_that_cannot_be_imported_is_named_with_the_reason() -> None:
    results = measured("missing")
    assert [*summary.refusals(results)] == [
        "missing: ModuleNotFoundError: No module named 'no_such_package'"
    ]
    assert results.values["steady", "base"] == [4.0]


def test_a_contender_whose_process_ends_when_it_is_opened_is_named_with_its_last_words() -> None:
    assert [*summary.refusals(measured("crashing"))] == [
        "crashing: its process ended with status 7. a last word"
    ]


def test_a_contender_that_dies_of_a_load_is_named_and_does_the_other_loads() -> None:
    results = measured("dying", rounds=2)
    assert [*summary.refusals(results)] == ["dying (steady): its process ended by SIGKILL."]
    assert results.values["parts, small", "dying"] == [1.0, 1.0]
    assert results.values["steady", "base"] == [4.0, 4.0]


def test_the_end_of_a_process_is_seen_at_once_though_a_child_has_its_pipes() -> None:
    start = time.monotonic()
    results = measured("dying-forked")
    assert results.refused["steady", "dying"] == "its process ended with status 3."
    assert time.monotonic() - start < measure.ANSWER_SECONDS


def test_a_contender_that_hangs_is_named_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ask = measure.Process.ask

    def ask_impatiently(self: measure.Process, load: str) -> measure.Answer:
        with monkeypatch.context() as patch:
            patch.setattr(measure, "ANSWER_SECONDS", 2.0)
            return ask(self, load)

    monkeypatch.setattr(measure.Process, "ask", ask_impatiently)
    results = measured("hanging", rounds=2)
    assert [*summary.refusals(results)] == ["hanging (steady): no answer within 2 s"]
    assert results.values["steady", "base"] == [4.0, 4.0]


def test_a_load_that_one_refuses_is_done_by_others() -> None:
    results = measured("refusing")
    assert [*summary.refusals(results)] == ["refusing (parts): it has no parts"]
    assert results.values["steady", "refusing"] == [1.0]
    assert results.values["parts, large", "base"] == [8.0]


def test_an_exception_is_named_as_it_is_whatever_characters_it_has() -> None:
    text = "Not measured: failing (steady): ValueError: [red]it failed[/]"
    assert text in shown(measured("failing")).splitlines()


def test_a_reason_names_files_but_not_where_they_are() -> None:
    missing = FileNotFoundError(2, "No such file or directory", "/some/where/it.py")
    assert reason(ExceptionGroup("", [missing])) == (
        "FileNotFoundError: [Errno 2] No such file or directory: 'it.py'"
    )


def test_a_value_that_has_no_ratio_is_refused() -> None:
    assert "zero (steady): it measured nothing" in next(summary.refusals(measured("zero")))


def test_no_process_that_a_contender_has_started_outlives_it() -> None:
    results = measured("leaving-child")
    (child,) = results.values["steady", "base"]
    try:
        ended = os.pidfd_open(int(child))
    except ProcessLookupError:
        return
    readable, _, _ = select([ended], [], [], 30)
    os.close(ended)
    assert readable


# ---- Turns ---------------------------------------------------------------------------------------


def test_turns_have_another_order_in_each_round_and_the_same_for_a_seed() -> None:
    first, same = (measured("fine", rounds=8).places for _ in range(2))
    assert first == same
    names = "base", "ours", f"ours{AGAIN}"
    orders = {*zip(*(first["steady", name] for name in names), strict=True)}
    assert len(orders) > 1
    assert all(sorted(order) == [0, 1, 2] for order in orders)


def test_one_of_ours_runs_twice_and_has_one_row() -> None:
    results = measured("fine")
    assert {name for _, name in results.values} == {"base", "ours", f"ours{AGAIN}"}
    assert [row.contender for row in summary.rows_of(results, "steady")] == ["ours", "base"]


def test_each_turn_has_a_new_process_where_a_question_asks_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[str] = []
    init = measure.Process.__init__

    def note(self: measure.Process, question: str, contender: str, workers: int) -> None:
        started.append(contender)
        init(self, question, contender, workers)

    monkeypatch.setattr(measure.Process, "__init__", note)
    measured("anew")
    assert sorted(started) == ["base"] * 2 + ["ours"] * 4  # two loads, and ours twice


async def test_a_timed_load_is_repeated_in_its_steps_until_it_takes_long_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = 0.0
    monkeypatch.setattr("benchmarks.model.time", SimpleNamespace(perf_counter=lambda: clock))

    async def work(_: Way, count: int) -> None:
        nonlocal clock
        assert count % 3 == 0
        clock += 0.001 * count

    count = await process.find_count(Timed(work, step=3), Way())
    assert process.LEAST_SECONDS <= 0.001 * count < 2 * process.LEAST_SECONDS


# ---- What the values say -------------------------------------------------------------------------


def test_ratios_are_taken_within_rounds() -> None:
    # The machine was slower from round to round; in each, one is twice as fast as the other.
    results = made_up("fine", base=[2, 4, 8, 100], ours=[1, 2, 4, 50])
    assert row_of(results, "ours").ratio == summary.Spread(2.0, 2.0, 2.0)


def test_a_ratio_within_the_noise_of_the_self_check_is_marked() -> None:
    base, ours = [1.10] * 5, [1.0] * 5
    quiet = made_up("fine", base=base, ours=ours, ours_again=[1.01] * 5)
    noisy = made_up("fine", base=base, ours=ours, ours_again=[1.01, 1.01, 1.0, 1.2, 1.2])
    assert report.ratio_text(row_of(quiet, "ours")) == "1.10"
    assert report.ratio_text(row_of(noisy, "ours")) == "≈ 1.10"
    assert "a factor of 1.20 (steady)" in " ".join(report.cautions(noisy))


def test_a_ratio_about_which_rounds_disagree_is_marked() -> None:
    results = made_up("fine", base=[1, 1, 3, 3, 3], ours=[2] * 5, ours_again=[2] * 5)
    assert report.ratio_text(row_of(results, "ours")) == "≈ 1.50"


def test_there_is_no_ratio_where_its_base_was_not_measured() -> None:
    assert report.ratio_text(row_of(made_up("fine", ours=[1.0]), "ours")) == "?"


def test_losses_are_told_like_wins() -> None:
    ahead = made_up("fine", base=[4.0] * 3, ours=[2.0] * 3, ours_again=[2.0] * 3)
    behind = made_up("fine", base=[1.0] * 3, ours=[2.0] * 3, ours_again=[2.0] * 3)
    neither = made_up("fine", base=[2.0] * 3, ours=[2.0] * 3, ours_again=[2.0] * 3)
    assert [*report.verdicts(ahead)] == [
        "dromon is ahead: steady (ours is 2.00 times as fast as base)."
    ]
    assert [*report.verdicts(behind)] == [
        "dromon is behind: steady (base is 2.00 times as fast as ours)."
    ]
    assert [*report.verdicts(neither)] == ["No difference is shown: steady (ours, base)."]


def test_too_few_rounds_are_told() -> None:
    few = made_up("fine", base=[1.0], ours=[2.0], ours_again=[2.0])
    assert "Rounds: 1 instead of 15" in shown(few)


def test_a_table_in_80_columns_cuts_nothing() -> None:
    name = "one-call"
    results = Results(REAL[name], 1)
    for contender in REAL[name].contenders:
        results.add("one after the other", contender.name, 0, {"values": {"": 1.234e-5}})
    assert "…" not in shown(results, width=80)


# ---- Files ---------------------------------------------------------------------------------------


def test_the_values_can_be_read_by_pyperf_with_the_places_of_their_turns(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    results = measured("refusing", rounds=3)
    results_file.write(file, [results], {"seed": "1", "load after": "0.1"})
    benchmark = pyperf.BenchmarkSuite.load(str(file)).get_benchmark("refusing: steady: base")
    about = benchmark.get_metadata()
    assert benchmark.get_values() == (4.0,) * 3
    assert about["not_measured"] == "refusing (parts): it has no parts"
    assert about["places"] == " ".join(map(str, results.places["steady", "base"]))
    assert about["load_after"] == "0.1"
    subprocess.run(
        [sys.executable, "-m", "pyperf", "compare_to", file, file], check=True, capture_output=True
    )


class Elements(HTMLParser):
    """How many elements of each kind there are, and what they refer to."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.references: list[str | None] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.references += [value for name, value in attributes if name in ("src", "href")]


def test_the_page_has_a_plot_and_a_table_for_each_load_and_refers_to_nothing_else(
    tmp_path: Path,
) -> None:
    file, elements = tmp_path / "page.html", Elements()
    page.write(file, [made_up("fine", base=[1.0], ours=[2.0])], {"machine": "<a machine>"})
    text = file.read_text()
    elements.feed(text)
    assert text.count('class="plotly-graph-div"') == elements.names.count("table") == 1
    assert elements.references == ["#fine"]
    assert "&lt;a machine&gt;" in text


# ---- The command ---------------------------------------------------------------------------------


def run_command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["no-such"], f"no question 'no-such'; there are {', '.join(REAL)}"),
        (["--rounds", "0"], "--rounds must be at least 1, not 0"),
        (["--contenders", "("], "argument --contenders: missing )"),
        (["--json", "/no/such/file"], "there is no folder /no/such"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_cannot_be_is_refused_before_anything_runs(
    arguments: list[str],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in QUESTIONS.keys() - REAL.keys():
        monkeypatch.delitem(QUESTIONS, name)
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 2
    assert expected in capsys.readouterr().err


def test_contenders_are_chosen_by_name_and_the_base_is_among_them() -> None:
    chosen = command.only(REAL["one-call"], re.compile("dromon.to_thread"))
    assert {one.name for one in chosen.contenders} == {"dromon.to_thread", "trio.to_thread"}


def test_a_run_that_is_interrupted_writes_what_it_has_and_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "results.json"
    arguments = ["benchmarks", "fine", "failing", "--rounds", "1", "--json", str(file)]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None)
    monkeypatch.setenv(workloads.SPEEDS, "")  # so that it is as before
    asked: list[measure.Process] = []
    ask = measure.Process.ask

    def ask_or_interrupt(self: measure.Process, load: str) -> measure.Answer:
        asked.append(self)
        if len(asked) > 2 * 3:  # these are the turns of the first question
            raise KeyboardInterrupt
        return ask(self, load)

    monkeypatch.setattr(measure.Process, "ask", ask_or_interrupt)
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 130
    assert all(process.has_ended for process in asked)
    names = pyperf.BenchmarkSuite.load(str(file)).get_benchmark_names()
    assert "fine: steady: ours" in names
    assert not any(name.startswith("failing") for name in names)


def test_the_command_measures_and_prints_and_writes(tmp_path: Path) -> None:
    files = tmp_path / "results.json", tmp_path / "page.html"
    done = run_command(
        *("one-call", "--rounds", "1", "--contenders", "dromon.to_thread"),
        *("--json", files[0], "--html", files[1]),
    )
    assert done.returncode == 0, done.stderr
    assert "How long does one call take?" in done.stdout
    assert "times trio.to_thread" in done.stdout
    assert "command: python -m benchmarks one-call --rounds 1" in done.stdout
    assert "load after: " in done.stdout
    assert "one-call: one after the other: dromon.to_thread (again)" in files[0].read_text()
    assert "How long does one call take?" in files[1].read_text()


# ---- The questions -------------------------------------------------------------------------------


@pytest.mark.parametrize("question", REAL.values(), ids=REAL)
def test_a_question_is_complete(question: Question) -> None:
    names = [contender.name for contender in question.contenders]
    bases = {question.base} if isinstance(question.base, str) else {*question.base.values()}
    series = [name for name, _ in question.aims]
    if not isinstance(question.base, str):
        series += question.base
    assert question.title.endswith("?")
    assert question.about.endswith(".")
    assert question.unit in report.SCALES
    assert len({*names}) == len(names)
    assert bases <= {*names}
    assert {contender for _, contender in question.aims} <= {*names}
    for one in series:
        assert any(one == load or one.startswith(f"{load}, ") for load in question.loads), one
    if not isinstance(question.base, str):
        for load in question.loads:
            assert any(one == load or one.startswith(f"{load}, ") for one in question.base), load


def test_questions_are_found_by_their_names() -> None:
    assert [*REAL] == [question.name for question in REAL.values()]
