"""`batchrun score FILE`: verdicts on a file of answers made elsewhere."""

from __future__ import annotations

import json

import pytest

from batchrun.storage.folder import OWN
from tests.cli.endpoint import Shell

EXPECTED = [{"name": "f", "arguments": {}}]


def test_the_figures_of_a_file_as_json(shell: Shell) -> None:
    source = shell.write("answers.jsonl", {"expected": EXPECTED, "tool_calls": [{"name": "f", "input": {}}]})
    ended = shell("score", source, "--json")
    assert ended.code == 0, ended.err
    told = json.loads(ended.out)
    assert (told["out"], told["rows"], told["accuracy"]["value"]) == ("answers.scored.jsonl", 1, 1.0)
    assert told["metrics"]["outcomes"] == {"correct": 1}


@pytest.mark.parametrize(
    ("calls", "outcome"),
    [
        ('{"name": "f", "input": {}}', "correct"),
        ('"{\\"name\\": \\"f\\", \\"input\\": {}}"', "correct"),
        ("null", "missing_call"),
        ("5", "invalid_json"),
        ("true", "invalid_json"),
        ('[{"name": "f", "input": {"a": 1, "a": 2}}]', "invalid_json"),
    ],
)
def test_whatever_stands_for_the_calls_gets_a_verdict(shell: Shell, calls: str, outcome: str) -> None:
    source = shell.write("answers.jsonl", f'{{"expected": {json.dumps(EXPECTED)}, "tool_calls": {calls}}}')
    ended = shell("score", source)
    assert ended.code == 0, ended.err
    assert outcome in ended.out


def test_the_calls_of_a_chat_completion_are_read_and_a_form_that_is_not_known_is_refused(shell: Shell) -> None:
    """In an unknown form each answer would be wrong, and the model would look as if it could not write JSON."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    source = shell.write("answers.jsonl", {"expected": EXPECTED, "tool_calls": [call]})
    assert "correct" in shell("score", source).out
    shell.write(
        "answers.jsonl", {"expected": EXPECTED, "tool_calls": [call]}, {"expected": EXPECTED, "tool_calls": [{"name": "f"}]}
    )
    ended = shell("score", source)
    assert ended.code == 2
    assert "answers.jsonl, row 1 (line 2), field `tool_calls`: call 1 has no `input`" in ended.err
    assert '"arguments"' in ended.err


def test_what_was_paid_for_is_written_over_by_no_verdicts_and_no_export(shell: Shell) -> None:
    """Not the answers themselves, not a file of a run, by whatever path or link it is named."""
    source = shell.write("answers.jsonl", {"expected": EXPECTED, "prompt": "Call f.", "tool_calls": []})
    (shell.folder / "link.jsonl").symlink_to("answers.jsonl")
    fast = ("--set", "simulate.first_byte_ms=0", "--set", "simulate.token_ms=0", "--simulate", "-q")
    assert shell("run", source, "--model", "m", "--out", "r", *fast).code == 0
    (shell.folder / "to_r").symlink_to("r")
    results = (shell.folder / "r" / "results.parquet").read_bytes()
    for out in (source, "link.jsonl", f"../{shell.folder.name}/{source}"):
        ended = shell("score", source, "--out", out)
        assert (ended.code, "is the source itself" in ended.err) == (2, True), out
    for name in sorted(OWN | {"journal/more.parquet"}):
        ended = shell("export", "r", "--format", "jsonl", "--out", f"to_r/{name}")
        assert (ended.code, "is a file of the run" in ended.err) == (2, True), name
        for command in ("cost", "report"):
            ended = shell(command, "r", "--format", "json", "-o", f"to_r/{name}")
            assert (ended.code, "is a file of the run" in ended.err) == (2, True), (command, name)
    for name in (source, "link.jsonl"):
        ended = shell("convert", source, "-o", "other.jsonl", "--rejects", name)
        assert (ended.code, "is the source itself" in ended.err) == (2, True), name
    assert shell("convert", source, "-o", "r/results.parquet").code == 2
    for name in ("results.parquet", "cost.parquet"):
        assert shell("score", "r/results.parquet", "--out", f"r/{name}").code == 2
    assert (shell.folder / "r" / "results.parquet").read_bytes() == results
    assert shell("export", "r", "--out", "r/answers.csv").code == 0
    assert shell("export", "r", "--out", "results.parquet", "--format", "csv").code == 0
