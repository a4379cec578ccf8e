"""`batchrun estimate` as a user types it, against a local endpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batchrun.cli import main
from batchrun.job import Simulate
from batchrun.simulator import process

MODEL = "claude-sonnet-4-20250514"
TOOL = {"name": "look_up", "input_schema": {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}}
QUICK = ("--set", "simulate.first_byte_ms=0", "--set", "simulate.token_ms=0")


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A job of 60 rows in two tags and many lengths, in an empty folder of its own."""
    monkeypatch.chdir(tmp_path)
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    rows = [
        {
            "id": f"r{number}",
            "prompt": f"What is {number}? " + "Think of it. " * (number % 13),
            "tools": [TOOL],
            "expected": [{"name": "look_up", "arguments": {"q": str(number)}}],
            "tags": ["even" if number % 2 == 0 else "odd"],
        }
        for number in range(60)
    ]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "job.toml").write_text(f'dataset = "data.jsonl"\n[request]\nmodel = "{MODEL}"\nmax_tokens = 300\n')
    return "job.toml"


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A running endpoint: its address, and the log of what it was asked (whole once it has ended)."""
    log = tmp_path / "access.jsonl"
    spec = Simulate(first_byte_ms=0, token_ms=0)
    with process.start(spec, access_log=log) as simulated:
        yield simulated.base_url, log


def call(*args: str) -> int:
    """Run one command and return its exit code."""
    with pytest.raises(SystemExit) as ended:
        main(args)
    return int(ended.value.code or 0)


def estimated(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    """Run `estimate --json` and return what it printed."""
    capsys.readouterr()
    code = call("estimate", *args, "--json", "-q")
    printed = capsys.readouterr()
    assert code == 0, printed.err
    made: dict[str, Any] = json.loads(printed.out)
    return made


def messages(log: Path) -> list[dict[str, Any]]:
    """Return the calls of /v1/messages that a log holds."""
    return [line for line in map(json.loads, log.read_text().splitlines()) if line["path"] == "/v1/messages"]


def test_without_an_endpoint_every_assumption_is_named(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    """No credential: nothing is sent, and the text says what stands in for each figure."""
    assert call("estimate", job, "--base-url", "http://127.0.0.1:1") == 0
    text = capsys.readouterr().out
    for said in (
        "60 rows = 60 calls",
        "rule of thumb",
        "1 to max_tokens",
        "no count_tokens: no credential is set",
        "batches: cost",
    ):
        assert said in text
    made = estimated(capsys, job)
    low, expected, high = made["total"]["messages"]["cost"]
    assert 0 < low < expected < high
    assert made["total"]["batches"]["cost"] == pytest.approx([low / 2, expected / 2, high / 2])


def test_the_endpoint_counts_sampled_rows_once(
    job: str, endpoint: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Counts are right to a few percent, kept on disk, and never asked for twice; off asks nothing."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "test")
    address = ("--base-url", endpoint[0])
    off = estimated(capsys, job, *address, "--count-tokens", "off")
    assert off["models"][0]["input_source"].startswith("rule of thumb")
    made = estimated(capsys, job, *address, "--count-tokens", "16", "--set", "limits.rpm=100000")
    assert made["models"][0]["input_source"] == "count_tokens of 16 of 60 rows"
    kept = Path("reports/.cache/token_counts.jsonl").read_bytes()
    assert len(kept.splitlines()) == 16
    assert b"test" not in kept
    again = estimated(capsys, job, *address, "--count-tokens", "16")
    assert again["total"]["input_tokens"] == made["total"]["input_tokens"]
    assert Path("reports/.cache/token_counts.jsonl").read_bytes() == kept
    assert call("run", job, *address, "-q", "--json") == 0
    actual = json.loads(capsys.readouterr().out)
    low, _, high = made["total"]["input_tokens"]
    assert low * 0.99 <= actual["models"][0]["tokens"]["input"] <= high * 1.01
    assert actual["estimate"]["actual"]["input_tokens"] == actual["models"][0]["tokens"]["input"]


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "missing"])
def test_an_endpoint_that_cannot_count_is_stated_and_does_without(
    job: str, endpoint: tuple[str, Path], address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "test")
    base_url = address if address != "missing" else f"{endpoint[0]}/elsewhere"
    made = estimated(capsys, job, "--base-url", base_url)
    why = "cannot be reached" if address != "missing" else "has no /v1/messages/count_tokens (HTTP 404)"
    assert any(why in note for note in made["notes"])
    assert made["models"][0]["input_source"].startswith("rule of thumb")


def test_a_pilot_s_calls_are_not_made_again(
    job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pilot and run together make as many calls as there are rows, and the run says how well it was foretold."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "test")
    log = tmp_path / "access.jsonl"
    with process.start(Simulate(first_byte_ms=0, token_ms=0), access_log=log) as simulated:
        made = estimated(capsys, job, "--base-url", simulated.base_url, "--pilot", "20", "--count-tokens", "off")
        pilot = made["pilot"]
        assert (pilot["calls"], pilot["errored"], pilot["confidence"]) == (20, 0, 0.9)
        assert pilot["cost"]["low"] < pilot["cost"]["expected"] < pilot["cost"]["high"]
        folder = Path(pilot["folder"])
        assert json.loads((folder / "summary.json").read_text())["rows"]["landed"] == 20
        assert call("resume", str(folder)) == 0
    assert "estimated $" in capsys.readouterr().err
    asked = messages(log)
    assert len(asked) == 60
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["rows"]["landed"] == summary["rows"]["total"] == 60
    estimate = summary["estimate"]
    assert estimate["confidence"] == 0.9
    assert estimate["held"] is (estimate["cost"]["low"] <= float(summary["cost"]["total"]) <= estimate["cost"]["high"])
    assert estimate["actual"]["cost"] == summary["cost"]["total"]
    assert float(summary["cost"]["total"]) == pytest.approx(estimate["cost"]["expected"], rel=0.2)


def test_a_pilot_of_every_call_leaves_nothing_open(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Two models and two repeats: the totals are exact, and the run that goes on makes no call."""
    both = ("--model", MODEL, "--model", "claude-3-5-haiku-20241022", "--set", "request.repeat=2", "--limit", "5")
    made = estimated(capsys, job, "--simulate", *QUICK, *both, "--pilot", "1000")
    cost = made["pilot"]["cost"]
    assert (made["calls"], made["pilot"]["calls"]) == (20, 20)
    assert cost["low"] == pytest.approx(cost["high"]) == pytest.approx(float(made["pilot"]["spent"]))
    assert call("resume", made["pilot"]["folder"], "--json", "-q") == 0
    summary = json.loads(capsys.readouterr().out)
    assert sum(session["sent"] for session in summary["sessions"]) == 20
    assert summary["rows"]["landed"] == 20


def test_earlier_runs_teach_the_next_estimate(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Bytes a token, output and latency come from the runs that are there; a simulated run teaches only the simulated."""
    assert call("run", job, "--simulate", *QUICK, "-q") == 0
    made = estimated(capsys, job, "--simulate", "--count-tokens", "off")
    assert made["models"][0]["input_source"] == f"earlier runs of {MODEL}"
    assert made["models"][0]["output_source"] == "1 earlier run"
    assert made["latency_source"] == "earlier runs"
    (results,) = Path("reports/job").glob("*/summary.json")
    actual = json.loads(results.read_text())["cost"]["total"]
    low, _, high = made["total"]["messages"]["cost"]
    assert low <= float(actual) <= high
    real = estimated(capsys, job, "--count-tokens", "off")
    assert real["models"][0]["input_source"].startswith("rule of thumb")
    Path("data.jsonl").write_text(Path("data.jsonl").read_text() + '{"prompt": "one more"}\n')
    changed = estimated(capsys, job, "--simulate", "--count-tokens", "off")
    assert changed["models"][0]["input_source"].startswith("rule of thumb")
    assert changed["models"][0]["output_source"] == "1 earlier run"


def test_a_model_without_a_price_is_named_loudly_and_costs_nothing_known(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("estimate", job, "--model", "mystery") == 0
    text = capsys.readouterr().out
    assert "no price is known for mystery: the cost is unknown" in text
    assert "$" not in text
    made = estimated(capsys, job, "--model", "mystery", "--simulate", *QUICK, "--pilot", "8")
    assert made["total"]["messages"]["cost"] is made["pilot"]["cost"] is made["pilot"]["spent"] is None
    assert made["total"]["unpriced"] == ["mystery"]
    assert made["pilot"]["input_tokens"]["low"] > 0


def test_rows_that_cannot_be_sent_are_counted_apart(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    with Path("data.jsonl").open("a") as file:
        file.write('{"prompt": 7}\n')
    made = estimated(capsys, job, "--set", "on_bad_row=skip")
    assert (made["rows"], made["bad_rows"]) == (60, 1)
    assert made["notes"][0] == "1 rows cannot be sent and are not in it"
    assert call("estimate", job) == 2


def test_a_number_that_is_none_is_refused(job: str) -> None:
    assert call("estimate", job, "--count-tokens", "many") == call("estimate", job, "--pilot", "1") == 2


def test_the_text_says_what_the_pilot_was_and_how_to_go_on(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Two models with cached prefixes: each is named before a pilot, and the folder to go on with after one."""
    system = "Look things up, one after the other, and say nothing else. " * 100
    both = ("--model", MODEL, "--model", "claude-3-5-haiku-20241022", "--set", f"request.system={system}")
    cached = (*both, "--set", "request.cache=auto", "--simulate", "-q", *QUICK)
    assert call("estimate", job, *cached) == 0
    text = capsys.readouterr().out
    assert "60 rows × 2 models = 120 calls  simulated" in text
    assert "claude-3-5-haiku-20241022: $" in text
    assert "the prompt cache is counted on at the low and expected ends" in text
    assert call("estimate", job, *cached, "--pilot", "48") == 0
    text = capsys.readouterr().out
    assert "pilot: 48 calls for $" in text
    assert "the whole, with 90% confidence: $" in text
    folder = text.partition("go on: batchrun resume ")[2].split()[0]
    assert "it makes the other 72 calls" in text
    assert call("resume", folder, "--json", "-q") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["rows"]["landed"] == 120
    assert float(summary["cost"]["total"]) == pytest.approx(summary["estimate"]["cost"]["expected"], rel=0.15)
    assert call("estimate", job, "--model", "mystery", "--simulate", "-q", *QUICK, "--pilot", "2") == 0
    assert "not known: a call has no price" in capsys.readouterr().out
    assert call("estimate", job, "--simulate", "-q", *QUICK, "--limit", "4", "--pilot", "3") == 0
    assert "the whole, with 90% confidence" in capsys.readouterr().out


def test_a_pilot_goes_the_way_of_the_run_and_prices_both(
    job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through batches: its calls are one batch at half the price, and messages are estimated at the whole of it."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "test")
    log = tmp_path / "access.jsonl"
    batches = ("--set", "request.mode=batches", "--count-tokens", "off", "--pilot", "20")
    with process.start(Simulate(first_byte_ms=0, token_ms=0), access_log=log) as simulated:
        made = estimated(capsys, job, "--base-url", simulated.base_url, *batches)
        pilot, total = made["pilot"], made["total"]
        assert (made["mode"], pilot["calls"], pilot["errored"], pilot["latency_s"]) == ("batches", 20, 0, None)
        assert not made["latency_source"].startswith("a pilot")
        assert total["messages"]["cost"] == pytest.approx([2 * end for end in total["batches"]["cost"]], rel=0.01)
        assert float(pilot["spent"]) == pytest.approx(total["batches"]["cost"][1] / 3, rel=0.2)
        assert call("resume", pilot["folder"], "--json", "-q") == 0
        summary = json.loads(capsys.readouterr().out)
    assert messages(log) == []
    assert summary["rows"]["landed"] == sum(session["sent"] for session in summary["sessions"]) == 60
    assert [len(session["batches"]) for session in summary["sessions"]] == [1, 2]
    assert float(summary["cost"]["total"]) == pytest.approx(summary["estimate"]["cost"]["expected"], rel=0.2)
    assert summary["estimate"]["cost"]["expected"] == pytest.approx(total["batches"]["cost"][1])
    assert call("estimate", job, "--simulate", "-q", *QUICK, *batches) == 0
    text = capsys.readouterr().out
    said = text.partition("batches: cost")[2].splitlines()[0].split()
    assert f"the whole, with 90% confidence: {said[1]} [{said[0]}, {said[2]}]" in text
