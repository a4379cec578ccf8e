"""Fields that the endpoint is known to refuse are named before anything is sent."""

from __future__ import annotations

from typing import Any

import pytest

from batchrun.job import Endpoint, RequestSpec
from batchrun.records import Sample
from batchrun.wire.lint import lint_fields, lint_marks, lint_request, lint_sample, model_number

OLD, NEW = "2023-06-01", "2026-10-21"
THINKING = {"type": "enabled", "budget_tokens": 2000}


@pytest.mark.parametrize(
    ("model", "version", "fields", "refused"),
    [
        ("claude-sonnet-4-20250514", OLD, {"temperature": 0.5, "top_p": 0.9, "top_k": 4}, []),
        ("claude-sonnet-4-20250514", NEW, {"temperature": 1, "top_p": None}, ["temperature"]),
        ("gateway-model", NEW, {"top_k": 4}, ["top_k"]),
        ("claude-sonnet-4-5-20250929", OLD, {"temperature": 0.5, "top_p": 0.9}, ["top_p"]),
        ("claude-sonnet-4-5-20250929", OLD, {"temperature": 0.5}, []),
        ("claude-opus-4-7", OLD, {"temperature": 0.5, "top_k": 1}, ["temperature", "top_k"]),
        ("claude-opus-4-7", OLD, {"temperature": 1}, []),
        ("claude-fable-5", OLD, {"top_p": 0.9}, ["top_p"]),
        ("claude-sonnet-4", OLD, {"thinking": THINKING, "temperature": 0.5, "top_p": 0.95, "max_tokens": 4000}, ["temperature"]),
        ("claude-sonnet-4", OLD, {"thinking": {"type": "adaptive"}, "tool_choice": {"type": "any"}}, ["tool_choice"]),
        ("claude-sonnet-4", OLD, {"thinking": {"type": "adaptive"}, "tool_choice": {"type": "auto"}}, []),
        ("claude-sonnet-4", OLD, {"thinking": THINKING, "max_tokens": 2000}, ["thinking.budget_tokens"]),
        ("claude-sonnet-4", OLD, {"thinking": {"type": "disabled"}, "temperature": 0.5}, []),
        ("claude-sonnet-4", OLD, {"unknown_new": 1}, []),
    ],
)
def test_refused_fields(model: str, version: str, fields: dict[str, Any], refused: list[str]) -> None:
    found = lint_fields(fields, model=model, version=version)
    assert [problem.field for problem in found] == refused
    assert all(problem.severity == "warning" for problem in found)


@pytest.mark.parametrize(
    ("model", "number"),
    [
        ("claude-sonnet-4-20250514", (4, 0)),
        ("claude-opus-4-1-20250805", (4, 1)),
        ("us.anthropic.claude-haiku-4.5", (4, 5)),
        ("claude-opus-5-5", (5, 5)),
        ("claude-3-5-sonnet-20241022", (0, 0)),
        ("gpt-9", (0, 0)),
    ],
)
def test_generations(model: str, number: tuple[int, int]) -> None:
    assert model_number(model) == number


def test_a_job_is_linted_for_each_model_once() -> None:
    spec = RequestSpec(model=("claude-opus-4-7", "claude-opus-4-7"), params={"top_k": 1}, tools=[], tool_choice={"type": "any"})
    found = lint_request(spec, Endpoint())
    assert [(problem.field, problem.code) for problem in found] == [
        ("request.params.top_k", "refused-field"),
        ("request.tools", "empty-tools"),
    ]
    assert lint_request(RequestSpec(), Endpoint()) == []
    thinking = RequestSpec(params={"thinking": THINKING}, tool_choice={"type": "tool", "name": "f"}, max_tokens=4000)
    assert [problem.field for problem in lint_request(thinking, Endpoint())] == ["request.tool_choice"]


@pytest.mark.parametrize(
    ("row", "fields"),
    [
        ({}, []),
        ({"params": b'{"top_k": 1}'}, ["params.top_k"]),
        ({"params": b'{"max_tokens": 0}'}, ["params.max_tokens"]),
        ({"params": b'{"max_tokens": true}'}, ["params.max_tokens"]),
        ({"params": b'{"stream": true}'}, ["params"]),
        ({"params": b"[]"}, ["params"]),
        ({"tools": b" [ ] "}, ["tools"]),
        ({"tools": b'[{"name":"f"}]'}, []),
    ],
)
def test_a_row_is_linted(row: dict[str, bytes], fields: list[str]) -> None:
    sample = Sample(index=7, id="x", messages=b"[]", **row)  # type: ignore[arg-type]  # fields of bytes
    spec = RequestSpec(model=("claude-opus-4-7",))
    found = lint_sample(sample, spec, Endpoint())
    assert [problem.field for problem in found] == fields
    assert all(problem.row == 7 for problem in found)
    assert [p.field for p in lint_sample(sample, RequestSpec(), Endpoint(version=NEW))] == fields


MARKED = b'{"type":"text","text":"x","cache_control":{"type":"ephemeral"}}'


@pytest.mark.parametrize(
    ("messages", "own", "told"),
    [
        (4, {}, True),
        (3, {}, False),
        (3, {"system": b"[%b,%b]" % (MARKED, MARKED)}, True),
        (0, {}, False),
        (3, {"system": b'"x"'}, False),
    ],
)
def test_more_cache_marks_than_the_api_takes_are_told(messages: int, own: dict[str, bytes], *, told: bool) -> None:
    text = b'[{"role":"user","content":[%b]}]' % b",".join([MARKED] * messages)
    spec = RequestSpec(tools=[{"name": "f", "cache_control": {"type": "ephemeral"}}])
    found = lint_marks(Sample(index=7, id="x", messages=text, **own), spec)  # type: ignore[arg-type]  # fields of bytes
    assert [(problem.row, problem.code, problem.severity) for problem in found] == [(7, "cache-marks", "warning")] * told


@pytest.mark.parametrize("odd", [[], {}, None, 5])
def test_an_odd_type_is_no_reason_to_fall_over(odd: Any) -> None:
    assert lint_fields({"thinking": {"type": odd}, "tool_choice": {"type": odd}}, model="claude-sonnet-4", version=OLD) == []
