"""One supervised run: which exit code wins, what is kept, who is told. The run itself is a stand-in that ends as it is told."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from batchrun.errors import (
    BatchrunError,
    BudgetReached,
    EndpointRefused,
    Interrupted,
    RunLocked,
    StorageError,
    TooManyErrors,
    UsageError,
)
from batchrun.job import with_overrides
from batchrun.prepare import Options
from batchrun.run import RunResult
from batchrun.schedule.history import Home
from batchrun.schedule.supervise import Supervisor

from .conftest import job, summary_of

GATES = "[gate]\nmin_accuracy = 0.8\n"


class Stage:
    """What the stand-in does: end with a summary and a reason, or raise."""

    def __init__(self) -> None:
        self.summary = summary_of(5)
        self.stopped: BatchrunError | None = None
        self.raises: Exception | None = None
        self.place = Path()

    def run(self, *_: Any, judge: Any, **__: Any) -> RunResult:
        """Stand in for `batchrun.run.run_fitted`."""
        if self.raises is not None:
            raise self.raises
        self.summary["folder"] = str(self.place)
        self.summary["stopped"] = None if self.stopped is None else str(self.stopped)
        if self.stopped is None:
            self.summary["gates"] = judge(self.summary, self.place)
        return RunResult(folder=self.place, summary=self.summary, stopped=self.stopped)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, home: Home) -> Stage:
    made = Stage()
    made.place = home.path / made.summary["run_id"]
    monkeypatch.setattr("batchrun.schedule.supervise.run_fitted", made.run)
    return made


def supervisor(home: Home, text: str = GATES) -> Supervisor:
    return Supervisor(job(text), Options(root=home.path.parent), {})


def errored(summary: dict[str, Any], count: int) -> dict[str, Any]:
    return {**summary, "rows": {**summary["rows"], "succeeded": 100 - count}}


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (EndpointRefused("x"), 3),
        (StorageError("x"), 4),
        (BudgetReached("x"), 6),
        (Interrupted("x", signal_number=2), 130),
        (Interrupted("x", signal_number=15), 143),
        (TooManyErrors("x"), 5),
    ],
)
def test_what_stopped_a_run_outranks_its_figures(home: Home, stage: Stage, reason: BatchrunError, code: int) -> None:
    """All rows errored and the accuracy is bad, but the run was stopped: its gates are not judged."""
    stage.summary = errored(summary_of(5, accuracy=0.1), 100)
    stage.stopped = reason
    ended = supervisor(home).run()
    assert (ended.exit_code, ended.error) == (code, reason)
    (row,) = home.rows()
    assert (row["exit_code"], row["stopped"], row["gates"]) == (code, "x", None)


def test_rows_that_are_missing_for_no_reason_are_4(home: Home, stage: Stage) -> None:
    """Nothing stopped the run and its journal lacks rows; the figures of the rest count for nothing."""
    stage.summary["rows"]["landed"] = 97
    ended = supervisor(home).run()
    assert ended.exit_code == 4
    assert "3 of 100 rows are not in its journal" in str(ended.error)
    assert home.rows()[0]["exit_code"] == 4


def test_rows_that_nobody_asked_for_are_not_missing(home: Home, stage: Stage) -> None:
    """A pilot calls a few rows, and a run whose answer is known leaves the rest."""
    stage.summary["rows"]["landed"] = 97
    pilot = Supervisor(job(GATES), Options(root=home.path.parent, only=frozenset(range(97))), {})
    assert pilot.run().exit_code == 0
    stage.summary = {**summary_of(6), "rows": stage.summary["rows"], "stop_when": {"known": True}}
    assert supervisor(home).run().exit_code == 0


def test_too_many_errors_outrank_a_failed_gate_which_is_told_all_the_same(home: Home, stage: Stage) -> None:
    stage.summary = errored(summary_of(5, accuracy=0.1), 6)
    ended = supervisor(home).run()
    assert ended.exit_code == 5
    assert str(ended.error) == "done, but 6 of 100 rows errored (6.0%), more than max_error_rate = 0.05 allows"
    assert home.rows()[0]["gates_passed"] is False


def test_at_the_bound_errors_are_allowed(home: Home, stage: Stage) -> None:
    stage.summary = errored(summary_of(5), 5)
    assert supervisor(home).run().exit_code == 0


def test_a_failed_gate_is_8_and_passed_gates_are_0(home: Home, stage: Stage) -> None:
    assert supervisor(home).run().exit_code == 0
    stage.summary = summary_of(6, accuracy=0.79)
    assert supervisor(home).run().exit_code == 8
    assert [row["gates_passed"] for row in home.rows()] == [True, False]


def test_a_gate_that_cannot_be_judged_has_not_held(home: Home, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The history is damaged while the run is on its way."""

    def damaging(*args: Any, **kwargs: Any) -> RunResult:
        home.table.write_bytes(b"no table")
        return stage.run(*args, **kwargs)

    monkeypatch.setattr("batchrun.schedule.supervise.run_fitted", damaging)
    watched = supervisor(home, '[gate]\nno_regression = { against = "last" }')
    ended = watched.run()
    assert ended.exit_code == 4
    assert len(watched.warnings) == 1  # there is no row of it either


def teller(out: Path) -> str:
    code = f"import sys; open({str(out)!r}, 'a').write(sys.stdin.read() + chr(10))"
    return f"[notify]\non = 'always'\ncommand = {json.dumps([sys.executable, '-c', code])}"


@pytest.mark.parametrize(("raised", "code"), [(UsageError("no such file"), 2), (StorageError("full"), 4), (ValueError("bug"), 1)])
def test_a_run_that_breaks_is_kept_and_told(home: Home, stage: Stage, tmp_path: Path, raised: Exception, code: int) -> None:
    """A bug is named by its kind alone: its words are for the traceback."""
    out = tmp_path / "told"
    supervisor(home).run()
    stage.raises = raised
    with pytest.raises(type(raised)):
        supervisor(home, teller(out)).run()
    row = home.rows()[-1]
    assert (row["exit_code"], row["rows"]) == (code, 0)
    told = json.loads(out.read_text())
    assert (told["event"], told["exit_code"]) == ("failure", code)
    assert told["reason"] == ("unexpected ValueError" if code == 1 else str(raised))


def test_a_second_run_is_refused_and_nobody_is_bothered(home: Home, stage: Stage, tmp_path: Path) -> None:
    out = tmp_path / "told"
    with home.lock(), pytest.raises(RunLocked):
        supervisor(home, teller(out)).run()
    stage.raises = RunLocked("the run's own lock")
    with pytest.raises(RunLocked):
        supervisor(home, teller(out)).run()
    assert not out.exists()
    assert home.rows() == []


def test_a_run_elsewhere_leaves_no_trace_and_takes_no_lock(home: Home, stage: Stage, tmp_path: Path) -> None:
    stage.place = tmp_path / "x"
    elsewhere = with_overrides(job(), [("out", str(stage.place))])
    with home.lock():
        assert Supervisor(elsewhere, Options(root=home.path.parent), {}).run().exit_code == 0
    assert home.rows() == []


def test_a_bad_reference_is_found_before_the_run(home: Home, stage: Stage) -> None:
    stage.raises = AssertionError("it ran")
    with pytest.raises(UsageError, match="there is no finished run nowhere"):
        supervisor(home, '[gate]\nno_regression = { against = "nowhere" }').run()
