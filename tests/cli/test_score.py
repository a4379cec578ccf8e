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
