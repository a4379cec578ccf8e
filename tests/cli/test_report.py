"""`batchrun report` and `batchrun view`, on the folder of a real (simulated) run."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from batchrun.cli import main
from batchrun.prepare import Options, load_job
from batchrun.run import run

MODEL = "claude-sonnet-4-20250514"
TOOL = {
    "name": "get_weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two finished runs of one dataset, the second by a worse model."""
    place = tmp_path_factory.mktemp("runs")
    lines = [
        {
            "id": f"q{number}",
            "prompt": f"How is the weather in <b>Oslo</b>, take {number}?",
            "tools": [TOOL],
            "expected": [{"name": "get_weather", "arguments": {"city": "Oslo"}}],
        }
        for number in range(24)
    ]
    (place / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name, accuracy in (("a", 0.9), ("b", 0.3)):
        overrides = [
            ("request.model", [MODEL]),
            ("out", str(place / name)),
            *(
                (f"simulate.{key}", value)
                for key, value in {"first_byte_ms": 0, "token_ms": 0, "accuracy": accuracy, "seed": 5}.items()
            ),
        ]
        run(load_job(str(place / "data.jsonl"), overrides=overrides), Options(simulate=True), environ={})
    return place / "a", place / "b"


def call(*args: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(arg) for arg in args])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_a_run_ends_with_its_page_and_report_draws_the_same_rows(
    runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """The rows drawn later from the results and the dataset are, byte for byte, those that the run's end wrote."""
    first = (runs[0] / "report.html").read_bytes().partition(b'<section id="rows"')[2]
    assert b"How is the weather in &lt;b&gt;Oslo&lt;/b&gt;" in first
    (runs[0] / "report.html").unlink()
    assert call("report", runs[0]) == 0
    assert (runs[0] / "report.html").read_bytes().partition(b'<section id="rows"')[2] == first
    assert capsys.readouterr().out == ""


def test_a_dataset_that_changed_costs_the_prompts_and_nothing_else(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = runs[0].parent / "data.jsonl"
    before = data.read_bytes()
    try:
        data.write_bytes(before.replace(b"Oslo", b"Rome"))
        assert call("report", runs[0], "-o", tmp_path / "page.html") == 0
    finally:
        data.write_bytes(before)
    page = (tmp_path / "page.html").read_text()
    assert "The dataset is not at hand." in page
    assert "Rome" not in page
    assert "has changed since the run" in capsys.readouterr().err


def test_markdown_and_json_go_to_stdout(runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert call("report", *runs, "--format", "md") == 0
    assert f"{MODEL} · a" in capsys.readouterr().out
    assert call("report", runs[0], "--format", "json") == 0
    (summary,) = json.loads(capsys.readouterr().out)
    assert summary["rows"]["total"] == 24


def test_junit_has_a_suite_a_run_and_tells_a_failure_from_an_error(runs: tuple[Path, Path], tmp_path: Path) -> None:
    assert call("report", *runs, "--format", "junit", "-o", tmp_path / "junit.xml") == 0
    suites = ET.parse(tmp_path / "junit.xml").getroot().findall("testsuite")  # noqa: S314 - our own file
    assert [suite.get("name") for suite in suites] == ["data a", "data b"]
    assert [len(suite.findall("testcase")) for suite in suites] == [24, 24]
    summaries = [json.loads((folder / "summary.json").read_bytes()) for folder in runs]
    for suite, summary in zip(suites, summaries, strict=True):
        assert len(suite.findall("testcase/failure")) == summary["rows"]["scored"] - summary["rows"]["correct"]
        assert len(suite.findall("testcase/error")) == summary["rows"]["infra_error"]


@pytest.mark.parametrize(("form", "shown"), [("html", "Rows that got worse"), ("md", "B is worse"), ("json", '"comparison"')])
def test_two_runs_are_compared_in_every_form(
    runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str], form: str, shown: str
) -> None:
    assert call("report", *runs, "--compare", "--format", form) == 0
    assert shown in capsys.readouterr().out


def test_wrong_use_says_what_to_type(runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("report", runs[0], "--compare") == 2
    assert "hint: batchrun report RUN_A RUN_B --compare" in capsys.readouterr().err
    assert call("report", tmp_path) == 2
    assert call("view", tmp_path, "--no-open") == 2


@pytest.mark.parametrize("content", ["null", "{}", "[]", '{"job": "x", "models": 5}'])
def test_a_summary_that_is_none_is_no_finished_run(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str) -> None:
    (tmp_path / "summary.json").write_text(content)
    for command in (("report", tmp_path), ("compare", tmp_path, tmp_path), ("report", tmp_path, "--format", "md")):
        assert call(*command) == 2
        assert "is not the folder of a finished run" in capsys.readouterr().err


def test_view_serves_until_it_is_interrupted(runs: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(runs[0], folder)
    command = [sys.executable, "-m", "batchrun", "view", str(folder), "--no-open"]
    # A shell that runs tests in the background has SIGINT ignored, and its children inherit that.
    signal_wakes = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.default_int_handler)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}, **signal_wakes
    ) as view:  # type: ignore[call-overload]  # as above
        try:
            url = view.stdout.readline().strip()
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{32}/", url)
            with urllib.request.urlopen(url, timeout=20) as answer:  # noqa: S310 - an address that was just matched
                assert "24 of 24 rows match" in answer.read().decode()
            view.send_signal(signal.SIGINT)
            _, errors = view.communicate(timeout=20)
        finally:
            view.kill()
    assert view.returncode == 0
    assert "stopped" in errors
