"""What a dataset or an endpoint says never acts on the terminal that shows it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from batchrun.cli import show_error
from batchrun.errors import DatasetError, Problem
from batchrun.visible import HIDDEN
from tests.cli.endpoint import Shell

ESCAPES = "a\x1b]0;PWNED\x07\x1b[2J\x9b31m\u202e"
FAST = ("--set", "simulate.first_byte_ms=0", "--set", "simulate.token_ms=0")
MODELS = ("m\x1b[31m", "n\u202e")


def commands(data: str) -> Iterator[tuple[str, ...]]:
    """A run of the dataset by both models, and every command that shows what came of it."""
    models = [word for model in MODELS for word in ("--model", model)]
    yield ("run", data, *models, "--simulate", "--allow-unpriced", "--out", "reports/e/r", *FAST)
    yield ("compare", "reports/e/r", "reports/e/r")
    yield ("compare", "reports/e/r", "reports/e/r", "--json")
    yield ("history", "e", "--simulated")
    yield ("cost", "reports/e/r")
    yield ("report", "reports/e/r", "--format", "md")
    yield ("report", "reports/e/r", "--format", "json")
    yield ("export", "reports/e/r", "--format", "card")
    yield ("estimate", data, *models, "--simulate", "--count-tokens", "off")


def test_no_command_shows_a_character_of_others_that_acts(shell: Shell) -> None:
    row = {"prompt": "what", "tags": [ESCAPES, "other"], "expected": []}
    data = shell.write("e.jsonl", *({**row, "id": f"{ESCAPES}{number}"} for number in range(6)))
    for args in commands(data):
        ended = shell(*args)
        assert ended.code == 0, (args, ended.err)
        assert HIDDEN.findall(ended.out + ended.err) == [], args
        assert "m␛" in ended.out + ended.err or "m\\u001b" in ended.out, args


def test_json_for_machines_keeps_the_text(shell: Shell) -> None:
    data = shell.write("e.jsonl", {"id": ESCAPES, "prompt": "what", "expected": []})
    ended = shell("run", data, "--model", ESCAPES, "--simulate", "--allow-unpriced", "--out", "r", "--json", "--quiet")
    assert json.loads(ended.out)["models"][0]["model"] == ESCAPES


def test_problems_and_hints_are_shown_visibly(capsys: pytest.CaptureFixture[str]) -> None:
    show_error(DatasetError([Problem(message=ESCAPES, hint=ESCAPES), Problem(message=ESCAPES)]))
    told = capsys.readouterr().err
    assert told.count("␛]0;PWNED␇") == 3
    assert HIDDEN.findall(told) == []


def test_an_interrupt_before_a_run_has_begun_is_told_with_what_goes_on(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    data = shell.write("e.jsonl", {"prompt": "what", "expected": []})
    monkeypatch.setattr("batchrun.sources.check.check_dataset", interrupted)
    ended = shell("run", data, "--model", "m", "--simulate", "--out", "reports/e/r", *FAST)
    assert ended.code == 130
    assert "error: stopped by SIGINT before it was done" in ended.err
    assert "batchrun resume RUN" in ended.err
    assert not (shell.folder / "reports/e/r").exists()
