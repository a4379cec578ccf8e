"""Checking: one pass, every problem with its place, nothing said twice."""

import json
from pathlib import Path
from typing import Any

import pytest

from batchrun.errors import DatasetError
from batchrun.job import RequestSpec
from batchrun.sources import check as check_module
from batchrun.sources import open_dataset
from batchrun.sources.check import CheckReport, check_dataset

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"name": "weather", "description": "Tell the weather.", "input_schema": SCHEMA}
CALL = [{"name": "weather", "arguments": {"city": "Paris"}}]


def check(folder: Path, *rows: Any, spec: RequestSpec | None = None, **options: Any) -> CheckReport:
    path = folder / "a.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return check_dataset(open_dataset(str(path), format="batchrun", **options), spec)


def codes(report: CheckReport) -> list[tuple[str, int | None, str | None]]:
    return [(problem.code, problem.row, problem.field) for problem in report.problems]


def test_a_sound_dataset_has_no_problem_and_is_measured(tmp_path: Path) -> None:
    report = check(
        tmp_path,
        {"prompt": "What is the weather in Paris?", "tools": [TOOL], "expected": CALL},
        {"prompt": "Hello there", "system": "Be kind."},
    )
    assert report.problems == ()
    assert report.ok
    assert (report.rows, report.expected_rows, report.distinct_tools) == (2, 1, 1)
    assert 60 < report.input_tokens < 110
    assert 50 < report.longest_row_tokens < report.input_tokens
    report.raise_for_errors()


def test_all_the_problems_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    report = check(
        tmp_path,
        {"id": "a", "prompt": "first question"},
        "{broken",
        {"id": 5.5, "tags": "x", "tools": {}, "note": "no prompt either"},
        {"id": "a", "prompt": "another question"},
        {"prompt": "with a bad tool", "tools": [{"name": "no good", "input_schema": SCHEMA}, {"name": "bare"}]},
        {
            "prompt": "with a bad schema",
            "tools": [{"name": "f", "input_schema": {"type": "object", "properties": {"a": {"type": "dict"}}}}],
        },
    )
    assert codes(report) == [
        ("broken-json", 1, None),
        ("no-messages", 2, "messages"),
        ("wrong-type", 2, "id"),
        ("wrong-type", 2, "tags"),
        ("tools-not-a-list", 2, "tools"),
        ("duplicate-id", 3, "id"),
        ("illegal-tool-name", 4, "tools[0].name"),
        ("tool-without-schema", 4, "tools[1].input_schema"),
        ("invalid-schema", 5, "tools[0].input_schema.properties.a.type"),
    ]
    with pytest.raises(DatasetError) as caught:
        report.raise_for_errors()
    assert len(caught.value.problems) == 9
    assert "row 1 (line 2): is not valid JSON" in str(caught.value)
    duplicate = next(problem for problem in report.problems if problem.code == "duplicate-id")
    assert duplicate.message == "'a' is the id of row 0 (line 1) too"
    assert duplicate.line == 4


def test_beyond_the_limit_problems_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("{broken\n" * 30 + '{"prompt": 5}\n' * 10)
    monkeypatch.setattr("batchrun.sources.check.SHOWN", 7)
    report = check_dataset(open_dataset(str(path)))
    assert len(report.problems) == 7
    assert report.counts == {"broken-json": 30, "wrong-type": 10}
    assert report.errors == 40
    with pytest.raises(DatasetError, match=r"33 more errors .*broken-json: 30, wrong-type: 10"):
        report.raise_for_errors()


def test_a_default_id_can_be_a_duplicate_too(tmp_path: Path) -> None:
    report = check(tmp_path, {"id": "1", "prompt": "first question"}, {"prompt": "second question"})
    assert codes(report) == [("duplicate-id", 1, "id")]


def test_the_same_prompt_twice_is_a_warning(tmp_path: Path) -> None:
    same = {"prompt": "What now?", "tools": [TOOL]}
    report = check(tmp_path, same, {"prompt": "What now?"}, same, same)
    assert codes(report) == [("duplicate-prompt", 2, "messages"), ("duplicate-prompt", 3, "messages")]
    assert report.ok
    assert report.warnings == 2


@pytest.mark.parametrize(
    ("messages", "code", "field"),
    [
        ([{"role": "user", "content": "?"}], "near-empty-prompt", "messages"),
        ([{"role": "user", "content": " \n"}], "empty-message", "messages"),
        ([{"role": "user", "content": ""}], "empty-message", "messages[0].content"),
        ([{"role": "user", "content": []}], "empty-message", "messages[0].content"),
        ([{"role": "system", "content": "be"}, {"role": "user", "content": "hello"}], "message-role", "messages[0].role"),
        ([{"role": "assistant", "content": "hello"}], "message-order", "messages[0].role"),
        ([{"role": "user"}], "message-shape", "messages[0]"),
        ([{"role": "user", "content": [{"text": "x"}]}], "message-shape", "messages[0].content[0]"),
        (
            [
                {"role": "user", "content": "go on"},
                {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "f", "input": {}}]},
                {"role": "user", "content": "and?"},
            ],
            "tool-result-missing",
            "messages[2]",
        ),
        (
            [
                {"role": "user", "content": "go on"},
                {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "f", "input": {}}]},
            ],
            "tool-result-missing",
            "messages",
        ),
        (
            [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t9", "content": "x"}]}],
            "tool-result-orphan",
            "messages[0]",
        ),
        (
            [
                {"role": "user", "content": "go on"},
                {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "f", "input": {}}] * 2},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "x"}]},
            ],
            "duplicate-call-id",
            "messages[1].content[1].id",
        ),
        (
            [
                {"role": "user", "content": "go on"},
                {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "f", "input": {}}]},
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "so:"}, {"type": "tool_result", "tool_use_id": "t1", "content": "x"}],
                },
            ],
            "tool-result-late",
            "messages[2].content[1]",
        ),
        (
            [{"role": "user", "content": [{"type": "text", "text": "who?", "cache_control": {"type": "ephemeral"}}] * 5}],
            "cache-marks",
            "messages",
        ),
    ],
)
def test_messages_that_the_endpoint_would_refuse(tmp_path: Path, messages: Any, code: str, field: str) -> None:
    assert codes(check(tmp_path, {"messages": messages})) == [(code, 0, field)]


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": "天気は"}],
        [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "u"}}]}],
        [{"role": "user", "content": "say"}, {"role": "assistant", "content": "{"}],
        [
            {"role": "user", "content": "go on"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "f", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "x"}]},
        ],
        [
            {"role": "user", "content": "go on"},
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": name, "name": "f", "input": {}} for name in ("t1", "t2")],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t1", "content": "x"},
                    {"type": "tool_result", "tool_use_id": "t2", "content": "x"},
                    {"type": "text", "text": "and now?"},
                ],
            },
        ],
    ],
)
def test_messages_that_are_fine(tmp_path: Path, messages: Any) -> None:
    assert check(tmp_path, {"messages": messages}).problems == ()


@pytest.mark.parametrize(
    ("tool", "code"),
    [
        ({"type": "function", "function": {"name": "f", "parameters": {}}}, "tool-shape"),
        ("f", "tool-shape"),
        ({"name": "f", "input_schema": {"type": "string"}}, "invalid-schema"),
        ({"name": "f", "input_schema": {"type": "object", "properties": {"a b": {}}}}, "illegal-parameter-name"),
        (
            {"name": "f", "input_schema": {"type": "object", "properties": {"a": {"$ref": "https://example.org/s"}}}},
            "invalid-schema",
        ),
        ({"name": "f", "input_schema": {"type": "object", "properties": {"a": {"$ref": "#/nowhere"}}}}, "invalid-schema"),
        ({"input_schema": SCHEMA}, "illegal-tool-name"),
        ({"name": "f", "type": [1]}, "tool-shape"),
        ({"name": "f", "type": None}, "tool-without-schema"),
        ({"name": "x" * 129, "input_schema": SCHEMA}, "illegal-tool-name"),
        (TOOL, "duplicate-tool"),
    ],
)
def test_tools_that_the_endpoint_would_refuse(tmp_path: Path, tool: Any, code: str) -> None:
    report = check(tmp_path, {"prompt": "a question", "tools": [TOOL, tool]})
    assert [problem.code for problem in report.problems] == [code]
    assert not report.ok


def test_server_tools_need_no_schema(tmp_path: Path) -> None:
    assert (
        check(tmp_path, {"prompt": "a question", "tools": [{"type": "web_search_20250305", "name": "web_search"}]}).problems == ()
    )


def test_the_jobs_tools_stand_in_for_a_rows(tmp_path: Path) -> None:
    row = {"prompt": "a question", "expected": CALL, "tool_choice": {"type": "tool", "name": "weather"}}
    assert check(tmp_path, row, spec=RequestSpec(tools=[TOOL])).problems == ()
    assert codes(check(tmp_path, row, spec=RequestSpec(tools=[{"name": "other", "input_schema": SCHEMA}]))) == [
        ("unknown-tool", 0, "expected"),
        ("tool-choice", 0, "tool_choice"),
    ]


@pytest.mark.parametrize("choice", [{"type": "maybe"}, {}, {"type": []}, {"type": "tool", "name": []}])
def test_a_tool_choice_nobody_knows(tmp_path: Path, choice: Any) -> None:
    assert codes(check(tmp_path, {"prompt": "a question", "tool_choice": choice})) == [("tool-choice", 0, "tool_choice")]


def test_what_a_scorer_of_ones_own_expects_is_not_held_against_the_contract(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": "What is it?", "tools": [TOOL], "expected": {"answer": 42}}) + "\n", encoding="utf-8")
    assert check_dataset(open_dataset(str(path)), own_scorer=True).problems == ()
    assert not check_dataset(open_dataset(str(path))).ok


def test_an_expected_that_cannot_be_read_is_an_error_and_one_that_cannot_be_met_a_warning(tmp_path: Path) -> None:
    report = check(
        tmp_path,
        {"prompt": "unreadable", "tools": [TOOL], "expected": [{"nme": "weather"}]},
        {"prompt": "not to be met", "tools": [TOOL], "expected": [{"name": "weather", "arguments": {"city": 5}}]},
    )
    assert [(problem.row, problem.severity) for problem in report.problems] == [(0, "error"), (1, "warning")]
    assert set(report.bad_rows) == {0}


def test_skipped_rows_keep_what_the_check_found(tmp_path: Path) -> None:
    """A second id and a tool without a schema are well-shaped alone; after a check they are carried as bad."""
    path = tmp_path / "a.jsonl"
    rows = [{"id": "a", "prompt": "one two"}, {"id": "a", "prompt": "three"}, {"prompt": "four", "tools": [{"name": "f"}]}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = open_dataset(str(path), on_bad_row="skip")
    report = check_dataset(dataset)
    assert set(report.bad_rows) == {1, 2}
    problems = [sample.problem for sample in dataset.samples()]
    assert problems[0] is None
    assert "is the id of row 0" in (problems[1] or "")
    assert "input_schema" in (problems[2] or "")


def test_equal_ids_are_found_however_far_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes are kept in pieces, sorted in shares; a place is counted over all of them."""
    monkeypatch.setattr(check_module, "PIECE", 512)  # a page of 8-byte hashes
    rows = [{"id": f"r{n if n != 1500 else 3}", "prompt": f"question {n if n != 1501 else 700}"} for n in range(1600)]
    assert codes(check(tmp_path, *rows)) == [("duplicate-id", 1500, "id"), ("duplicate-prompt", 1501, "messages")]


def test_no_row_is_a_problem(tmp_path: Path) -> None:
    assert codes(check(tmp_path)) == [("no-rows", None, None)]
    assert not check(tmp_path, "\n").ok


def test_parameters_that_the_endpoint_refuses_are_told_of_the_job_and_of_rows(tmp_path: Path) -> None:
    rows = [{"prompt": "one two"}, {"prompt": "three", "params": {"max_tokens": 0}}, {"prompt": "four", "tools": []}]
    spec = RequestSpec(params={"thinking": {"type": "enabled", "budget_tokens": 9000}})
    assert [(problem.row, problem.code) for problem in check(tmp_path, *rows, spec=spec).problems] == [
        (1, "bad-params"),
        (2, "empty-tools"),
        (None, "refused-field"),
    ]
