"""A run's summary → the figures a report shows, in words: one value for HTML and for Markdown.

A `Column` is one model of one run; several of them stand side by side. Every figure comes from the summary as it is, and
what is unknown is a dash. The only number made here is the interval of a tool's share. This module refuses to know how a
figure is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from msgspec import Struct

from batchrun.records import NOT_IN_DENOMINATOR
from batchrun.report.words import UNKNOWN, count, duration, interval, milliseconds, money, percent, untold_waste
from batchrun.statistics.proportions import wilson

MOST_TOOLS: Final = 100
OUTCOMES: Final = (
    "correct",
    "wrong_call",
    "missing_call",
    "extra_call",
    "unexpected_call",
    "unknown_tool",
    "invalid_json",
    "schema_violation",
    "truncated",
    "refused",
    "infra_error",
    "unscored",
)
KINDS: Final = {
    "input": "input",
    "output": "output",
    "cache_read": "cache read",
    "cache_write_5m": "cache write, 5 min",
    "cache_write_1h": "cache write, 1 h",
    "web_search": "web search",
    "wasted": "thrown away",
}


Words = Callable[[Any], str | None]


class Column(NamedTuple):
    """One model of one run."""

    name: str
    run: Mapping[str, Any]
    model: Mapping[str, Any]


class Figure(NamedTuple):
    """One line of a table: what it is, a cell a column, and whether it belongs to the line above."""

    name: str
    cells: list[str]
    inner: bool = False


class Share(Struct, frozen=True, kw_only=True):
    """A share with its interval, ready to be drawn: fractions, None where undefined."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0

    @property
    def words(self) -> str:
        """The share with its interval."""
        return interval({"value": self.value, "low": self.low, "high": self.high})


def columns(runs: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Return a column a model of each run; where a model is in several runs, the run is named too."""
    names = [model["model"] for run in runs for model in run["models"]]
    return [
        Column(model["model"] if names.count(model["model"]) == 1 else f"{model['model']} · {run['run_id']}", run, model)
        for run in runs
        for model in run["models"]
    ]


def headline(cols: Sequence[Column]) -> list[Figure]:
    """Return the figures of the head table."""
    models = [column.model for column in cols]
    figures = [
        Figure("Accuracy", [interval(m["accuracy"]) for m in models]),
        Figure("Rows scored", [f"{m['rows']['scored']:,} of {m['rows']['landed']:,}" for m in models]),
        Figure("Partial credit", [interval(m["score"]) for m in models]),
        Figure("Cost", [money(m["cost"]["total_usd"]) for m in models]),
        Figure("of it thrown away", [money(m["cost"]["wasted_usd"]) for m in models], inner=True),
        Figure("a correct row", [money(_per_correct(m)) for m in models], inner=True),
        Figure("Tokens in / out", [f"{count(m['tokens']['input'])} / {count(m['tokens']['output'])}" for m in models]),
        Figure("First token p50 / p95", [pair(m["ttft_ms"]) for m in models]),
        Figure("Latency p50 / p95", [pair(m["latency_ms"]) for m in models]),
        Figure("Attempts a row", [_ratio(m["attempts"], m["rows"]["landed"]) for m in models]),
    ]
    return [figure for figure in figures if any(cell != UNKNOWN for cell in figure.cells)]


def outcomes(cols: Sequence[Column]) -> list[Figure]:
    """Return how many rows had which outcome."""
    models = [column.model for column in cols]
    return [Figure(kind, [_of(m, kind) for m in models]) for kind in kinds(models)]


def kinds(models: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the outcomes that occur, in the contract's order."""
    return [kind for kind in OUTCOMES if any(model["outcomes"].get(kind) for model in models)]


def tag_shares(cols: Sequence[Column]) -> dict[str, list[Share | None]]:
    """Return the accuracy by tag, a cell a column; None where a column has no such tag."""
    return _by_name([{tag["tag"]: share_of(tag) for tag in column.model["tags"]} for column in cols])


def share_of(estimate: Mapping[str, Any]) -> Share:
    """Return an estimate of the summary as a share."""
    return Share(value=estimate["value"], low=estimate["low"], high=estimate["high"], n=estimate["n"])


class ToolLine(NamedTuple):
    """One tool: calls expected, made and right; found is right of expected with its interval."""

    name: str
    expected: int
    called: int
    right: int
    found: Share
    precision: float | None
    arguments_f1: float | None


def tools(model: Mapping[str, Any]) -> list[ToolLine]:
    """Return the tools of one model, the most expected first."""
    confidence = model["accuracy"]["confidence"]
    lines = []
    for name, tool in model["metrics"]["by_tool"].items():
        bounds = wilson(tool["right"], tool["expected"], confidence) if tool["right"] <= tool["expected"] else None
        low, high = bounds or (None, None)
        found = Share(value=tool["recall"], low=low, high=high, n=tool["expected"])
        f1 = tool["arguments"]["f1"]
        lines.append(ToolLine(name, tool["expected"], tool["called"], tool["right"], found, tool["precision"], f1))
    return sorted(lines, key=lambda line: (-line.expected, -line.called, line.name))


def behaviour(cols: Sequence[Column]) -> list[Figure]:
    """Return how the models call and abstain: arguments, schemas, inventions, precision and recall of calling at all."""
    metrics = [column.model["metrics"] for column in cols]
    return [
        Figure("Argument F1, all arguments", [percent(m["arguments"]["micro"]["f1"]) for m in metrics]),
        Figure("Argument F1, mean of the tools", [percent(m["arguments"]["macro"]["f1"]) for m in metrics]),
        Figure("Rows that keep every schema", [_part(m["schema_valid"]) for m in metrics]),
        Figure("Rows with arguments that are no JSON", [_rows(m["invalid_json"]) for m in metrics]),
        Figure("Rows that call a tool nobody offered", [_rows(m["hallucinated"]) for m in metrics]),
        Figure("Calls where a call is right (recall)", [percent(m["abstention"]["call"]["recall"]) for m in metrics]),
        Figure("Abstains where no call is right", [percent(m["abstention"]["abstain"]["recall"]) for m in metrics]),
        Figure("Balanced accuracy of the two", [percent(m["abstention"]["balanced_accuracy"]) for m in metrics]),
    ]


def repeats(cols: Sequence[Column]) -> int:
    """Return how often each row was asked."""
    return max((column.model["metrics"]["passes"]["repeats"] for column in cols), default=1)


def passes(cols: Sequence[Column]) -> list[Figure]:
    """Return pass@k and pass^k of each column, a cell for each k; nothing where rows were asked once."""
    most = repeats(cols)
    if most < 2:
        return []
    lines = []
    for column in cols:
        found = column.model["metrics"]["passes"]
        for name, key in (("pass@k", "pass_at_k"), ("pass^k", "pass_hat_k")):
            shown = f"{name} {column.name}" if len(cols) > 1 else name
            lines.append(Figure(shown, [percent(found[key].get(str(k))) for k in range(1, most + 1)]))
    return lines


def money_lines(run: Mapping[str, Any]) -> list[Figure]:
    """Return what a run cost and what it would have cost, a line each."""
    cost = run["cost"]
    currency = cost["currency"]
    named = {
        "total": "Total",
        "answers": "Answers",
        "wasted": "Thrown away (billed, not used)",
        "per_row": "A row",
        "per_correct": "A correct row",
        "per_1000_calls": "1,000 calls",
        "without_cache": "The same without a prompt cache",
        "cache_saved": "Saved by the prompt cache",
        "as_batch": "The same as a message batch",
    }
    lines = [Figure(name, [money(cost[key], currency)]) for key, name in named.items()]
    if cost["unpriced"]:
        lines.append(Figure("Answers without a known price", [f"{sum(cost['unpriced'].values()):,}"]))
    return lines


def kind_lines(run: Mapping[str, Any]) -> list[Figure]:
    """Return tokens, money and share of the total by kind."""
    cost = run["cost"]
    total = float(cost["total"] or 0)
    return [
        Figure(
            KINDS.get(kind, kind),
            [
                UNKNOWN if part["tokens"] is None else f"{part['tokens']:,}",
                money(part["cost"], cost["currency"]),
                percent(float(part["cost"]) / total) if total else UNKNOWN,
            ],
        )
        for kind, part in cost["by_kind"].items()
    ]


def estimate_lines(run: Mapping[str, Any]) -> list[Figure]:
    """Return what was estimated before the run beside what it came to: low, expected, high, actual."""
    estimate = run.get("estimate")
    if not estimate:
        return []
    currency, actual = estimate["currency"], estimate["actual"]
    quantities: tuple[tuple[str, str, Words], ...] = (
        ("Cost", "cost", lambda value: money(value, currency)),
        ("Input tokens", "input_tokens", count),
        ("Output tokens", "output_tokens", count),
        ("Time", "hours", lambda value: None if value is None else duration(float(value) * 3600)),
    )
    return [
        Figure(name, [words(value) or UNKNOWN for value in (*_three(estimate[key]), actual[key])])
        for name, key, words in quantities
        if estimate[key] is not None
    ]


def times(model: Mapping[str, Any]) -> list[Figure]:
    """Return the percentiles of one model's clocks."""
    named = {
        "queued_ms": "Waited before the send",
        "ttft_ms": "First token",
        "first_call_ms": "First call",
        "latency_ms": "Whole reply",
    }
    at = ("p50", "p90", "p95", "p99", "max")
    lines = [Figure(name, [milliseconds(model[key].get(p)) for p in at]) for key, name in named.items()]
    speed = model["tokens_per_s"]
    lines.append(Figure("Output tokens a second", [count(speed.get(p)) for p in at]))
    return [line for line in lines if any(cell != UNKNOWN for cell in line.cells)]


def outside(rows: Mapping[str, int]) -> list[str]:
    """Say how many rows are outside accuracy's denominator, by kind."""
    return [f"{rows[kind]:,} {kind}" for kind in sorted(NOT_IN_DENOMINATOR) if rows.get(kind)]


def outside_cost(run: Mapping[str, Any]) -> list[str]:
    """Say what is in no sum of a run's cost: answers without a price, waste that nobody told."""
    unpriced = (
        [f"no price is known for {', '.join(run['unpriced_models'])}, or no usage was told"] if run.get("unpriced_models") else []
    )
    untold = [untold_waste(run["cost"]["waste_unknown"])] if run["cost"].get("waste_unknown") else []
    return [f"{words}: that is in no sum" for words in (*unpriced, *untold)]


def pair(percentiles: Mapping[str, float | None]) -> str:
    """Return the median and the 95th percentile of a time."""
    if percentiles.get("p50") is None:
        return UNKNOWN
    return f"{milliseconds(percentiles['p50'])} / {milliseconds(percentiles.get('p95'))}"


def _by_name(cells: Sequence[Mapping[str, Share]]) -> dict[str, list[Share | None]]:
    names = sorted({name for column in cells for name in column})
    return {name: [column.get(name) for column in cells] for name in names}


def _three(ends: Mapping[str, float]) -> list[float]:
    return [ends["low"], ends["expected"], ends["high"]]


def _of(model: Mapping[str, Any], kind: str) -> str:
    number, landed = model["outcomes"].get(kind, 0), model["rows"]["landed"]
    return f"{number:,} ({percent(number / landed)})" if landed else f"{number:,}"


def _ratio(part: float, whole: float) -> str:
    return f"{part / whole:.2f}" if whole else UNKNOWN


def _part(counted: Mapping[str, Any]) -> str:
    return UNKNOWN if counted["rate"] is None else f"{percent(counted['rate'])} of {counted['of']:,}"


def _rows(counted: Mapping[str, Any]) -> str:
    return UNKNOWN if counted["rate"] is None else f"{counted['rows']:,} ({percent(counted['rate'])})"


def _per_correct(model: Mapping[str, Any]) -> float | None:
    total, right = model["cost"]["total_usd"], model["rows"]["correct"]
    return float(total) / right if total is not None and right else None
