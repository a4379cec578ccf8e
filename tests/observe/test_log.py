"""The event log: JSON lines without secrets, few words as text, and never a reason for a run to fail."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.cli import main
from batchrun.errors import StorageError
from batchrun.job import Job, Observe, parse_job
from batchrun.observe.log import EventLog, RunLog
from batchrun.observe.observing import observing
from batchrun.observe.redaction import REDACTED, Redactor, redactor_of
from batchrun.records import Attempt, Failure

KEY = "sk-very-secret-0123456789"
QUICK = ("--set", "simulate.first_byte_ms=0", "--set", "simulate.token_ms=0", "--model", "m", "--simulate")


def a_job(**overrides: object) -> Job:
    given = [("request.model", ["model-a", "model-b"]), ("request.repeat", 2), *overrides.items()]
    return parse_job("", default_name="weather", default_dataset="none", overrides=given)


def a_failure(**more: Any) -> Attempt:
    failure = Failure(kind="http", retry="retry", message="HTTP 429: slow down", type="rate_limit_error", status=429)
    known: dict[str, Any] = {"ordinal": 11, "attempt": 3, "final": False, "status": "errored", "model": "model-b"}
    return Attempt(**{**known, "failure": failure, **more})


def run_log(spec: Observe, job: Job | None = None) -> RunLog:
    return RunLog(EventLog(spec, Redactor([KEY]), {"run_id": "run-1"}), job or a_job())


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_failed_attempt_names_its_row_its_reason_and_its_wait(capsys: pytest.CaptureFixture[str]) -> None:
    log = run_log(Observe(log_format="json"))
    log.ended(a_failure(), 1.23456)
    log.ended(a_failure(final=True), None)
    first, last = events(capsys.readouterr().err)
    assert first.pop("ts").endswith("Z")
    assert first == {
        "level": "info", "event": "attempt_failed", "run_id": "run-1", "row": 2, "model": "model-b", "repeat": 1, "attempt": 3,
        "final": False, "kind": "http", "type": "rate_limit_error", "status": 429, "message": "HTTP 429: slow down",
        "wait_s": 1.235, "request_id": None,
    }  # fmt: skip
    assert (last["level"], last["final"], last["wait_s"]) == ("warning", True, None)


def test_text_tells_of_long_pauses_alone(capsys: pytest.CaptureFixture[str]) -> None:
    log = run_log(Observe())
    log.started(folder="somewhere")
    log.ended(a_failure(), 1.0)
    log.paused(2.0)
    log.paused(30.0)
    log.stopped(ValueError("why"))
    log.paused(50.0, outage=True)
    words = ["paused by the endpoint for 30 s", "no call is answered; trying again in 50 s"]
    assert capsys.readouterr().err.splitlines() == [f"warning: {line}" for line in words]


def test_waits_that_end_together_are_one_pause(capsys: pytest.CaptureFixture[str]) -> None:
    log = run_log(Observe(log_format="json"))
    for seconds in (10.0, 10.1, 9.0, 12.5):
        log.paused(seconds)
    assert [event["wait_s"] for event in events(capsys.readouterr().err)] == [10.0, 12.5]


def test_off_says_nothing_and_makes_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = run_log(Observe(log_format="off", log_file=str(tmp_path / "events.log")))
    log.paused(60.0)
    log.close()
    assert capsys.readouterr().err == ""
    assert not list(tmp_path.iterdir())


def test_a_file_is_made_with_its_folder_and_appended_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = Observe(log_format="json", log_file=str(tmp_path / "logs" / "events.jsonl"))
    for _ in range(2):
        log = run_log(spec)
        log.paused(60.0)
        log.close()
    assert [event["event"] for event in events((tmp_path / "logs" / "events.jsonl").read_text())] == ["run_paused"] * 2
    assert capsys.readouterr().err == ""
    with pytest.raises(StorageError, match="cannot be written"):
        run_log(Observe(log_file=str(tmp_path)))


def test_a_person_is_told_once_that_telemetry_is_not_sent(capsys: pytest.CaptureFixture[str]) -> None:
    for spec, told in ((Observe(), 1), (Observe(log_format="json"), 3)):
        log = run_log(spec)
        for _ in range(3):
            log.untold("no collector at http://127.0.0.1:9")
        assert len(capsys.readouterr().err.splitlines()) == told


def test_a_log_that_cannot_be_written_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.StringIO):
        tries = 0

        def write(self, text: str) -> int:
            Full.tries += 1
            raise OSError(28, "No space left on device", text)

    monkeypatch.setattr(sys, "stderr", Full())
    log = run_log(Observe(log_format="json"))
    for seconds in (10.0, 20.0, 30.0):
        log.paused(seconds)
    assert Full.tries == 1


@given(st.recursive(st.text() | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_a_secret_value_is_nowhere_whatever_holds_it(value: object) -> None:
    held = Redactor([KEY]).clean({"a": [value, {f"x{KEY}": f"Bearer {KEY}", "b": (KEY, value)}]})
    assert KEY not in json.dumps(held)


def test_secrets_go_by_name_too_and_counts_stay() -> None:
    fields = {
        "x-api-key": "abc", "Authorization": "Bearer x", "api_key": ["abc"], "client.secret": {"a": 1}, "apikey": "abc",
        "input_tokens": 5, "max_tokens": "7", "token": 5, "monkey": "x", "author": "x", "password": None, "tokens": {"input": 3},
    }  # fmt: skip
    told = Redactor([]).clean(fields)
    hidden = {name for name, value in told.items() if value == REDACTED}
    assert hidden == {"x-api-key", "Authorization", "api_key", "client.secret", "apikey"}
    assert {name: told[name] for name in fields if name not in hidden} == {
        name: value for name, value in fields.items() if name not in hidden
    }


def test_every_credential_of_the_job_and_the_environment_is_known() -> None:
    job = a_job(
        **{
            "endpoint.headers": {"X-Gateway-Key": "header-secret", "X-Team": "team-blue"},
            "endpoint.proxy": "http://proxyuser:proxypassword@proxy.example:3128",
            "notify.webhook_env": "HOOK",
            "dataset": "https://data.example/rows.jsonl?X-Amz-Date=20250301&X-Amz-Signature=signed%2Fsecret",
        }
    )
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector.example/tenant-token/v1/traces?auth=query-secret",
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:4318/v1/metrics",
        "ANTHROPIC_API_KEY": KEY,
        "OTHER_TOKEN": "other-token",
        "HOOK": "https://hooks.example/T1/secretpath",
        "SHORT_KEY": "abc",
        "OTEL_EXPORTER_OTLP_HEADERS": "api-key=collector-secret,x-team=blue",
    }
    redactor = redactor_of(job, environ)
    text = redactor.text(f"{KEY} header-secret team-blue proxypassword other-token https://hooks.example/T1/secretpath abc")
    assert text == f"{REDACTED} {REDACTED} team-blue {REDACTED} {REDACTED} {REDACTED} abc"
    assert KEY not in repr(redactor)
    assert redactor.text("sent collector-secret") == f"sent {REDACTED}"
    assert redactor.text("/tenant-token/v1/traces?auth=query-secret") == f"/{REDACTED}/v1/traces?{REDACTED}"
    assert redactor.text("X-Amz-Signature=signed%2Fsecret, signed/secret") == f"X-Amz-Signature={REDACTED}, {REDACTED}"


def test_an_error_that_leaves_the_run_is_an_event(capsys: pytest.CaptureFixture[str]) -> None:
    error = StorageError(f"the disk is full, {KEY}", hint="make room")
    with (
        pytest.raises(StorageError),
        observing(a_job(**{"observe.log_format": "json"}), "run-1", {"ANTHROPIC_API_KEY": KEY}),
    ):
        raise error
    (event,) = events(capsys.readouterr().err)
    assert (event["event"], event["level"], event["exit_code"], event["hint"]) == ("run_stopped", "error", 4, "make room")
    assert event["reason"] == f"the disk is full, {REDACTED}"


def write_rows(folder: Path, number: int = 12) -> str:
    rows = [{"prompt": f"Say {place}.", "expected": []} for place in range(number)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / "rows.jsonl")


def ended(*args: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(args)
    return int(stop.value.code or 0)


def test_with_json_every_line_of_stderr_is_an_event(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    source = write_rows(tmp_path)
    gate = ("--set", "gate.max_p95_latency_ms=0.001", "--set", "simulate.faults.cut=0.4")
    assert ended("run", source, *QUICK, *gate, "--log-format", "json", "--json") == 8
    out, err = capsys.readouterr()
    told = events(err)
    names = [event["event"] for event in told]
    assert (names[0], names[-2:]) == ("run_started", ["run_finished", "exit"])
    assert set(names[1:-2]) == {"attempt_failed"}
    assert told[-1]["exit_code"] == 8
    assert told[-1]["reason"].startswith("gate max_p95_latency_ms failed")
    assert told[-2]["rows"]["landed"] == 12
    assert json.loads(out)["rows"]["landed"] == 12
    assert KEY not in out + err


def test_a_run_that_cannot_begin_ends_in_events_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "id": "x"}\n{"prompt": "b", "id": "x"}\n')
    assert ended("run", "rows.jsonl", *QUICK, "--log-format", "json") == 2
    (event,) = events(capsys.readouterr().err)
    assert (event["event"], event["exit_code"]) == ("exit", 2)
    assert "`id`" in event["reason"]
