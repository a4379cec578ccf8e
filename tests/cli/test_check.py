"""What `check` lets pass can be run: every setting that `run` refuses is refused by `check`, and nothing is left behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.endpoint import Shell, endpoint

HERE = '[endpoint]\nbase_url = "http://127.0.0.1:9"\n'
MISFITS = [
    pytest.param('[endpoint]\nbase_url = "http://"', "endpoint.base_url", "a host", id="no host"),
    pytest.param('[endpoint]\nbase_url = "http://127.0.0.1:99999"', "endpoint.base_url", "Port out of range", id="port"),
    pytest.param('[endpoint]\nbase_url = "http://127.0.0.1:9?x=1"', "endpoint.base_url", "query", id="query"),
    pytest.param('[endpoint]\nbase_url = "http://me:hunter2@127.0.0.1:9"', "endpoint.base_url", "password", id="userinfo"),
    pytest.param(HERE + 'version = "a\\nb"', "endpoint.version", "line break", id="version"),
    pytest.param(HERE + 'headers = { "x y" = "a" }', "endpoint.headers.'x y'", "not a header name", id="blank in a name"),
    pytest.param(HERE + 'headers = { "x-ü" = "a" }', "endpoint.headers.'x-ü'", "not a header name", id="name not ASCII"),
    pytest.param(HERE + 'headers = { "x\\r\\ny" = "a" }', r"endpoint.headers.'x\r\ny'", "not a header name", id="name with CRLF"),
    pytest.param(HERE + 'headers = { x-y = "a\\r\\nb" }', "endpoint.headers.'x-y'", "line break", id="value with CRLF"),
    pytest.param(HERE + 'headers = { x-y = "日本" }', "endpoint.headers.'x-y'", "no header can carry", id="value not ASCII"),
    pytest.param(HERE + 'headers = { Content-Length = "5" }', "endpoint.headers.'Content-Length'", "connection", id="length"),
    pytest.param(HERE + 'headers = { Authorization = "hunter2" }', "endpoint.headers.'Authorization'", "credential", id="key"),
    pytest.param(HERE + 'headers = { x-api-key = "hunter2" }', "endpoint.headers.'x-api-key'", "credential", id="API key"),
    pytest.param(HERE + 'transport = "own"\nproxy = "http://127.0.0.1:9"', "endpoint.transport", "neither a proxy", id="own"),
    pytest.param(HERE + 'proxy = "nope"', "endpoint.proxy", "address is not one", id="proxy"),
    pytest.param(
        '[endpoint]\nbase_url = "https://127.0.0.1:9"\nca_file = "gone.pem"', "endpoint.ca_file", "gone.pem", id="authorities"
    ),
    pytest.param('[scoring]\nscorer = "nope"', "scoring.scorer", "not a module and a class", id="scorer without a class"),
    pytest.param('[scoring]\nscorer = "nope:X"', "scoring.scorer", "No module named 'nope'", id="scorer of no module"),
    pytest.param('[scoring]\nscorer = "json:loads"', "scoring.scorer", "cannot be made", id="scorer that cannot be made"),
    pytest.param(
        '[scoring]\nstop_when = { decided_against = "nope" }', "scoring.stop_when.decided_against", "nope", id="decided against"
    ),
    pytest.param('[prices]\nfile = "gone.toml"', "prices.file", "gone.toml", id="no price file"),
    pytest.param("[prices]\nmultiplier = -1", "prices.multiplier", "must be 0 to", id="price"),
    pytest.param('[gate]\nno_regression = { against = "nope" }', "gate.no_regression.against", "no finished run nope", id="gate"),
    pytest.param("[limits]\nmax_cost_usd = 1", "request.model", "no price is known for mystery", id="budget without a price"),
    pytest.param('[schedule]\ncron = "xx"', "schedule.cron", "no cron expression", id="cron"),
    pytest.param('[schedule]\nevery_s = 60\ntimezone = "Mars"', "schedule.timezone", "no time zone", id="time zone"),
]  # fmt: skip


def a_job(shell: Shell, table: str, prompt: object = "hello") -> str:
    """Write a job with `table` in it and its dataset of one row; return its name."""
    shell.write("ok.jsonl", {"prompt": prompt})
    (shell.folder / "job.toml").write_text(f'dataset = "ok.jsonl"\n[request]\nmodel = "mystery"\n{table}\n', encoding="utf-8")
    return "job.toml"


@pytest.mark.parametrize(("table", "field", "words"), MISFITS)
def test_check_refuses_what_run_refuses_and_nothing_is_made(shell: Shell, table: str, field: str, words: str) -> None:
    """The same words and the same key, by `check`, `run` and `estimate`: exit 2, no folder, no secret told."""
    job = a_job(shell, table)
    before = sorted(shell.folder.rglob("*"))
    checked = shell("check", job)
    assert (checked.code, words in checked.out) == (2, True), checked
    assert f"error: job.toml, field `{field}`: " in checked.out
    assert "1 rows" in checked.out, "the dataset is read all the same"
    for command in (("run", job), ("run", job, "--out", "out"), ("estimate", job)):
        refused = shell(*command)
        assert refused.code == 2, refused.err
        assert f"error: job.toml, field `{field}`: " in refused.err
        assert words in refused.err
        assert "hunter2" not in checked.out + refused.err
    assert sorted(shell.folder.rglob("*")) == before


@pytest.mark.parametrize("base_url", ["http://127.0.0.1:99999", "http://"])
def test_schedule_refuses_an_address_that_is_none(shell: Shell, base_url: str) -> None:
    refused = shell("schedule", a_job(shell, f'[endpoint]\nbase_url = "{base_url}"\n[schedule]\nevery_s = 60'), "--status")
    assert refused.code == 2
    assert "field `endpoint.base_url`: " in refused.err


def test_all_that_is_wrong_is_told_at_once_the_job_before_the_dataset(shell: Shell) -> None:
    table = (
        '[endpoint]\nbase_url = "http://"\nversion = "a\\nb"\nheaders = { "a b" = "c", Host = "d" }\n[scoring]\nscorer = "nope"'
    )
    job = a_job(shell, table, prompt=5)
    report = json.loads(shell("check", job, "--json").out)
    fields = [problem["field"] for problem in report["problems"]]
    headers = ["endpoint.version", "endpoint.headers.'a b'", "endpoint.headers.'Host'"]
    assert fields == ["endpoint.base_url", *headers, "scoring.scorer", "prompt"]
    assert (report["ok"], report["errors"]) == (False, 6)
    assert sum(report["counts"].values()) == 6
    assert all(problem["hint"] for problem in report["problems"][:-1])
    said = shell("run", job).err
    assert [field for field in fields[:-1] if f"field `{field}`" not in said] == []


def test_a_dataset_that_is_gone_does_not_hide_what_is_wrong_with_the_job(shell: Shell) -> None:
    job = a_job(shell, '[scoring]\nscorer = "nope"')
    (shell.folder / "ok.jsonl").unlink()
    ended = shell("check", job)
    assert ended.code == 2
    assert "`scoring.scorer`" in ended.err
    assert "ok.jsonl" in ended.err


def test_bad_rows_that_are_skipped_do_not_excuse_the_job(shell: Shell) -> None:
    job = a_job(shell, '[prices]\nfile = "gone.toml"')
    (shell.folder / job).write_text('on_bad_row = "skip"\n' + (shell.folder / job).read_text())
    assert shell("check", job).code == 2


def test_check_needs_no_credential_and_names_one_that_cannot_be_sent(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    job = a_job(shell, HERE)
    assert shell("check", job).code == 0
    monkeypatch.setenv("ANTHROPIC_API_KEY", "hunter2\nhunter3")
    for command in ("check", "run"):
        ended = shell(command, job)
        assert ended.code == 2
        assert "the environment variable ANTHROPIC_API_KEY holds a line break" in ended.out + ended.err
        assert "hunter" not in ended.out + ended.err
    assert not (shell.folder / "reports").exists()


def test_a_simulated_run_needs_no_address_of_the_job(shell: Shell) -> None:
    """Nothing is sent there; but its headers are sent to whoever is called."""
    quick = ("--simulate", "--quiet", "--set", "simulate.first_byte_ms=0", "--set", "simulate.token_ms=0")
    job = a_job(shell, '[endpoint]\nbase_url = "http://"')
    assert shell("run", job, "--out", "out", *quick).code == 0
    refused = shell("run", a_job(shell, HERE + 'headers = { Host = "x" }'), "--out", "other", *quick)
    assert refused.code == 2
    assert not (shell.folder / "other").exists()


def test_a_run_is_not_resumed_with_what_check_refuses(shell: Shell) -> None:
    """And stays as it was."""
    data = shell.write("ok.jsonl", {"prompt": "hello"})
    with endpoint() as served:
        assert shell("run", data, "--model", "m", "--base-url", served.base_url, "--out", "out").code == 0
        kept = {file: file.read_bytes() for file in Path("out").rglob("*") if file.is_file()}
        refused = shell("resume", "out", "--set", "scoring.scorer=nope", "--set", "prices.file=gone.toml")
    assert refused.code == 2
    assert "`scoring.scorer`" in refused.err
    assert "`prices.file`" in refused.err
    assert {file: file.read_bytes() for file in Path("out").rglob("*") if file.is_file()} == kept
    assert len(served.asked) == 1


def test_a_sound_job_passes_and_runs(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a part of every kind that is looked at: none of them is refused for nothing."""
    monkeypatch.syspath_prepend(shell.folder)
    (shell.folder / "the_scorer.py").write_text(
        "class Always:\n    def score(self, expected, tools, reply):\n        return True\n"
    )
    (shell.folder / "prices.toml").write_text('[[models]]\nmodel = "mystery"\ninput = 1\noutput = 2\n')
    parts = (
        '[scoring]\nscorer = "the_scorer:Always"\n[prices]\nfile = "prices.toml"\n[limits]\nmax_cost_usd = 1\n'
        '[gate]\nno_regression = { against = "last" }\n[schedule]\ncron = "0 6 * * *"\ntimezone = "Europe/Berlin"\n'
    )
    with endpoint() as served:
        job = a_job(shell, f'[endpoint]\nbase_url = "{served.base_url}"\nheaders = {{ x-team = "blue" }}\n{parts}')
        assert shell("check", job).code == 0
        assert served.asked == []
        assert shell("run", job, "--quiet").code == 0
    assert len(served.asked) == 1
