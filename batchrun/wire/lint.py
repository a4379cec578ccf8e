"""Request fields → what the endpoint is known to refuse, before anything is sent.

Looks at the fields of a body that are not the row's own data: the job's and a row's parameters, against the
API version and the model they go to. Rules are tables with their source. They are warnings where a gateway
behind the same address may take the field all the same, errors where no body can be made at all. Tools and
messages are judged where rows are read (`sources.lint`).

Sources: API versions page and "Migrating to API version 2026-10-21" (sampling parameters removed for every
model); thinking docs, "Sampling parameters" (refused by Claude 4.7 and later under every version, beside
thinking, and `temperature` together with `top_p` from Claude 4.5 on).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from batchrun.errors import Problem
from batchrun.job import Endpoint, RequestSpec
from batchrun.records import Sample
from batchrun.wire.request import MARK_KEY, MOST_MARKS, row_params

SAMPLING: Final = ("temperature", "top_p", "top_k")
SAMPLING_REMOVED_IN: Final = "2026-10-21"
"""First `anthropic-version` under which a sampling parameter of any value is a 400; versions sort as text."""

_DEFAULTS: Final = {"temperature": 1}
_REFUSES_SAMPLING: Final = (4, 7)
_ONE_OF_TWO: Final = (4, 5)
_MODEL: Final = re.compile(r"claude-(?:opus|sonnet|haiku|fable|mythos)-(\d{1,2})(?:[-.](\d{1,2})(?!\d))?")
_FORCED: Final = ("any", "tool")


def lint_request(spec: RequestSpec, endpoint: Endpoint) -> list[Problem]:
    """Return what is wrong with the job's own fields, for any of its models."""
    found = [_placed(problem, "request.params") for problem in _refused(_job_fields(spec), spec, endpoint)]
    if spec.tools == []:
        found.append(_empty_tools("request.tools"))
    return found


def lint_sample(sample: Sample, spec: RequestSpec, endpoint: Endpoint) -> list[Problem]:
    """Return what is wrong with one row's own parameters, beside the job's; [] for nearly every row."""
    found = []
    if sample.tools is not None and not sample.tools.strip(b" \t\r\n[]"):
        found.append(_empty_tools("tools"))
    try:
        own = {name: json.loads(value) for name, value in row_params(sample.params).items()}
    except (ValueError, RecursionError) as error:
        return [Problem(message=str(error), row=sample.index, field="params", code="bad-params")]
    if not _is_count(own.get("max_tokens", 1)):
        found.append(Problem(message="must be a whole number of at least 1", field="params.max_tokens", code="bad-params"))
    if own:
        known = set(_refused(_job_fields(spec), spec, endpoint))
        refused = _refused({**_job_fields(spec), **own}, spec, endpoint)
        found += [_placed(problem, "params") for problem in refused if problem not in known]
    return [problem._replace(row=sample.index) for problem in found]


def lint_marks(sample: Sample, spec: RequestSpec) -> list[Problem]:
    """Return what is wrong with the cache marks of a row and of what the job adds to it; [] where the row has none of its own.

    A warning: a tool may have a parameter of that name.
    """
    own = (sample.messages, sample.tools, sample.system)
    marks = sum(text.count(MARK_KEY) for text in own if text is not None)
    if marks == 0:
        return []
    shared = [job for row, job in ((sample.tools, spec.tools), (sample.system, spec.system)) if row is None and job is not None]
    marks += json.dumps(shared).count(MARK_KEY.decode())
    if marks <= MOST_MARKS:
        return []
    message = f"{marks} cache marks in one request: the API takes {MOST_MARKS} at most"
    return [_warning("messages", message, code="cache-marks")._replace(row=sample.index)]


def _job_fields(spec: RequestSpec) -> dict[str, Any]:
    """Return the fields that the job gives every body and that rules speak of."""
    choice = {} if spec.tool_choice is None else {"tool_choice": spec.tool_choice}
    return {"max_tokens": spec.max_tokens, **choice, **spec.params}


def _refused(fields: Mapping[str, Any], spec: RequestSpec, endpoint: Endpoint) -> list[Problem]:
    """Return what any of the job's models refuses, each once."""
    models = spec.model or ("",)
    return list(dict.fromkeys(p for model in models for p in lint_fields(fields, model=model, version=endpoint.version)))


def lint_fields(fields: Mapping[str, Any], *, model: str, version: str) -> list[Problem]:
    """Return what a model under an API version refuses among the fields of a body."""
    given = [name for name in SAMPLING if fields.get(name) is not None]
    found = []
    if version >= SAMPLING_REMOVED_IN:
        found += [_warning(name, f"is refused under anthropic-version {version}", code="refused-field") for name in given]
    elif model_number(model) >= _REFUSES_SAMPLING:
        odd = [name for name in given if fields[name] != _DEFAULTS.get(name)]
        found += [_warning(name, f"is refused by {model}", code="refused-field") for name in odd]
    elif _thinks(fields):
        odd = [name for name in given if name != "top_p" and fields[name] != _DEFAULTS.get(name)]
        found += [_warning(name, "is refused beside `thinking`", code="refused-field") for name in odd]
    elif model_number(model) >= _ONE_OF_TWO and {"temperature", "top_p"} <= set(given):
        found.append(_warning("top_p", f"is refused by {model} beside `temperature`", code="refused-field"))
    choice = fields.get("tool_choice")
    if _thinks(fields) and isinstance(choice, Mapping) and choice.get("type") in _FORCED:
        found.append(_warning("tool_choice", f"{choice['type']!r} is refused beside `thinking`", code="refused-field"))
    budget = fields["thinking"].get("budget_tokens") if _thinks(fields) else None
    limit = fields.get("max_tokens")
    if isinstance(budget, int) and isinstance(limit, int) and budget >= limit:
        found.append(_warning("thinking.budget_tokens", "must be less than max_tokens", code="refused-field"))
    return found


def model_number(model: str) -> tuple[int, int]:
    """Return the generation that a Claude model's name tells, (0, 0) where it tells none."""
    found = _MODEL.search(model)
    return (int(found[1]), int(found[2] or 0)) if found else (0, 0)


def _thinks(fields: Mapping[str, Any]) -> bool:
    thinking = fields.get("thinking")
    return isinstance(thinking, Mapping) and thinking.get("type") in ("enabled", "adaptive")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _empty_tools(field: str) -> Problem:
    hint = "leave it out, if no tools are meant"
    return Problem(message="is empty: the model can call nothing", field=field, severity="warning", code="empty-tools", hint=hint)


def _warning(field: str, message: str, *, code: str) -> Problem:
    return Problem(message=message, field=field, severity="warning", code=code)


def _placed(problem: Problem, table: str) -> Problem:
    """Return the problem with the full path of its field."""
    if problem.field == "tool_choice":
        table = table.removesuffix(".params")
    return problem._replace(field=f"{table}.{problem.field}")
