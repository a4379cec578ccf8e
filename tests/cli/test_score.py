"""`batchrun score FILE`: verdicts on a file of answers made elsewhere."""

from __future__ import annotations

import json

import pytest

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
