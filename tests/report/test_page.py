"""`report.html`: complete, the same each time, small, and text stays text."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from batchrun.records import Row, Sample
from batchrun.report import charts, page
from batchrun.report.html import for_each
from batchrun.report.markdown import render_markdown
from batchrun.report.page import render_run, run_values
from batchrun.report.page_rows import RowSample, Sampled
from batchrun.visible import visible
from tests.report.conftest import MODEL, call, make_row, make_sample, make_summary, right_row

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    '"><img src=x onerror=alert(3)>',
    "' onmouseover='alert(4)",
    "javascript:alert(5)",
    "{{ 7 * 7 }}{% for x in y %}",
    "<!--<svg/onload=alert(6)>",
    "]]></style><iframe src=//evil.example>",
    "&lt;b&gt;",
    "\u2028\u2029\u202ertl\u2066",
    "\x00\x1b[31m\x9b",
    "\ud800",
    "<details open ontoggle=alert(7)>",
    "$\\{alert(8)\\}`",
]
VOID = {"meta", "link", "br", "input", "line", "rect", "path", "img"}


class Page(HTMLParser):
    """Collects what a browser would make of a page: elements, attributes, text, and whether every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """Hold an end against the innermost open element."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Note text."""
        self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        """Return the attributes of every element of this name."""
        return [attributes for name, attributes in self.tags if name == tag]


def sampled(rows: list[Row]) -> Sampled:
    drawn = RowSample()
    for row in rows:
        drawn.add(row, make_sample(row))
    return drawn.sampled()


def test_a_page_is_well_formed_and_has_every_section(mixed_rows: list[Row]) -> None:
    gates = [{"name": "min_accuracy", "passed": False, "detail": "accuracy is 66.0% of at least 90.0%"}]
    made = Page(render_run(make_summary(mixed_rows, gates=gates), sampled(mixed_rows)))
    assert made.open == []
    sections = [attributes.get("id") for attributes in made.named("section")]
    assert sections == ["gates", "outcomes", "tags", "tools", "calling", "cost", "latency", "throughput", "rows"]
    assert {f"#{name}" for name in sections} == {a["href"] for a in made.named("a") if a["href"] != "#content"}
    assert "1 of 1 gates failed" in made.text
    assert "All 100 failing rows are here; of the others 100 of 200. results.parquet has every row." in made.text


def test_headings_are_in_order_and_tables_have_scopes(mixed_rows: list[Row]) -> None:
    made = Page(render_run(make_summary(mixed_rows), sampled(mixed_rows)))
    levels = [int(tag[1]) for tag, _ in made.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all(attributes.get("scope") in {"row", "col"} for attributes in made.named("th"))
    assert len({attributes.get("id") for _, attributes in made.tags if "id" in attributes}) == sum(
        "id" in attributes for _, attributes in made.tags
    )


def test_the_same_run_gives_the_same_bytes(mixed_rows: list[Row]) -> None:
    summary = make_summary(mixed_rows)
    assert render_run(summary, sampled(mixed_rows)) == render_run(summary, sampled(mixed_rows))


def test_a_page_asks_the_network_for_nothing(mixed_rows: list[Row]) -> None:
    made = Page(render_run(make_summary(mixed_rows), sampled(mixed_rows)))
    for tag, attributes in made.tags:
        assert tag not in {"img", "iframe", "object", "embed", "base"}
        assert attributes.get("src") is None
        assert (attributes.get("href") or "#").startswith(("#", "data:,"))


def test_the_policy_runs_the_pages_own_script_and_nothing_else(mixed_rows: list[Row]) -> None:
    text = render_run(make_summary(mixed_rows), sampled(mixed_rows))
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(a["content"] for a in Page(text).named("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert f"script-src 'sha256-{digest}'" in policy


@pytest.mark.parametrize("bad", HOSTILE)
def test_hostile_text_in_every_field_stays_text(bad: str) -> None:
    """A page of hostile rows has the elements and attribute names of a page of harmless ones, and shows the text."""

    def elements(word: str, model: str) -> tuple[list[Any], Page]:
        expected = msgspec.json.encode([{"name": visible(word), "arguments": {visible(word): visible(word)}}]).decode()
        given = msgspec.json.encode({visible(word): visible(word) + "!"}).decode()
        fields = ("id", "explanation", "text", "thinking", "stop_reason", "error_message", "error_type", "request_id", "metadata")
        texts: dict[str, Any] = dict.fromkeys(fields, word)
        row = make_row(
            **texts,
            model=model,
            tags=(word, "b"),
            cluster=word,
            expected=expected,
            tool_calls=(call(given, visible(word)), call(None, word, raw=word, error=word)),
            status="errored",
        )
        sample = Sample(
            index=0,
            id=word,
            messages=msgspec.json.encode([{"role": visible(word), "content": [{"type": "text", "text": visible(word)}]}]),
            system=msgspec.json.encode(visible(word)),
        )
        drawn = RowSample()
        drawn.add(row, sample)
        gates = [{"name": word, "passed": False, "detail": word}]
        about: dict[str, Any] = {"job": word, "run_id": word, "dataset": word, "base_url": word, "stopped": word, "gates": gates}
        made = Page(render_run(make_summary([row], **about), drawn.sampled()))
        return [(tag, sorted(attributes)) for tag, attributes in made.tags], made

    harmless, _ = elements("harmless", "model-a")
    hostile, made = elements(bad, bad)
    assert hostile == harmless
    assert made.open == []
    assert made.text.count(str(visible(bad))) > 20


def test_lines_written_all_at_once_are_as_visible_and_as_escaped_as_any_text() -> None:
    lines = [("<b>", "a\0b", "%s"), ("", "\u202e&", '"quoted"')]
    assert str(for_each("<td>%s</td><td>%s|%s</td>", lines)) == (
        "<td>&lt;b&gt;</td><td>a␀b|%s</td><td></td><td>⟦U+202E⟧&amp;|&#34;quoted&#34;</td>"
    )
    assert str(for_each("<td>%s</td>", [])) == ""
    assert str(for_each("<td>%s</td>", [("",)])) == "<td></td>"
    assert visible(5) == 5


def test_a_page_of_many_rows_stays_small_and_says_what_it_shows() -> None:
    """100,000 rows of hostile length: all aggregates, a bounded number of rows, under 5 MB."""
    long = "<&>é\u202e" * 5_000
    drawn = RowSample()
    some = [make_row(index, text=long, explanation=long, tool_calls=(call(None, raw=long),) * 30) for index in range(40)]
    for index in range(100_000):
        template = some[index % 40]
        drawn.add(msgspec.structs.replace(template, index=index, id=f"row-{index}"), make_sample(template))
    text = render_run(make_summary(some), drawn.sampled())
    assert 1_000_000 < len(text.encode()) < 5_000_000
    assert re.search(r"\d+ of 100,000 failing rows are here, a uniform draw of each outcome", Page(text).text)


def test_without_the_charting_library_the_page_is_complete(mixed_rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "can_draw", lambda: False)
    text = render_run(make_summary(mixed_rows), sampled(mixed_rows))
    made = Page(text)
    assert made.open == []
    assert len([svg for svg in made.named("svg") if svg.get("class") == "plain"]) == 5
    assert charts.WHAT_TO_INSTALL in made.text


def test_the_page_of_a_run_that_ends_starts_no_drawing_engine(mixed_rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    """The charts are the plain ones, and the page says how to have the full ones."""
    monkeypatch.setattr(charts, "can_draw", lambda: True)
    monkeypatch.setattr(charts, "drawn", None)
    made = Page(render_run(make_summary(mixed_rows), sampled(mixed_rows), draw=False))
    assert len([svg for svg in made.named("svg") if svg.get("class") == "plain"]) == 5
    assert "For the full charts: batchrun report RUN" in " ".join(made.text.split())
    assert charts.WHAT_TO_INSTALL not in made.text


def test_the_charts_are_vegas_in_the_pages_colours(mixed_rows: list[Row]) -> None:
    pytest.importorskip("vl_convert")
    values = run_values(make_summary(mixed_rows))
    drawn = [*values["histograms"], *values["timelines"]]
    assert [chart.title for chart in drawn][:2] == ["Time to first token", "Time to the whole reply"]
    for chart in drawn:
        assert chart.svg.startswith('<svg aria-hidden="true"')
        assert "var(--series-1)" in chart.svg or "var(--bad)" in chart.svg
        assert not re.search(r"#0000[01]", chart.svg)
        assert "http" not in chart.svg.replace("http://www.w3.org/", "")


def test_several_models_stand_side_by_side() -> None:
    rows = [make_row(0), right_row(1), make_row(0, model="claude-3-5-haiku"), right_row(1, model="claude-3-5-haiku")]
    made = Page(render_run(make_summary(rows), sampled(rows)))
    assert len(made.named("article")) == 2
    assert {row["data-model"] for row in made.named("details")} == {MODEL, "claude-3-5-haiku"}


@pytest.mark.parametrize("broken", [1, 2])
def test_what_is_in_no_sum_of_the_cost_stands_beside_it(broken: int) -> None:
    rows = [make_row(index, wasted_usd=None) for index in range(broken)]
    rows.append(right_row(2, model="mystery", cost_usd=None))
    of_waste = f"{'1 row' if broken == 1 else '2 rows'} had an attempt that broke off before it told what it was billed for"
    of_price = "o price is known for mystery, or no usage was told: that is in no sum"
    page, markdown = Page(render_run(make_summary(rows), sampled(rows))).text, render_markdown([make_summary(rows)])
    assert f"{of_waste}: that is in no sum." in page
    assert f"N{of_price}." in page
    assert f"- {of_waste}: that is in no sum\n" in markdown
    assert f"- n{of_price}\n" in markdown


def test_a_cost_that_is_all_known_has_no_note(mixed_rows: list[Row]) -> None:
    assert "in no sum" not in render_run(make_summary(mixed_rows), sampled(mixed_rows))
    assert "in no sum" not in render_markdown([make_summary(mixed_rows)])


def test_a_run_without_rows_has_a_page() -> None:
    made = Page(render_run(make_summary([], sessions=[]), Sampled(rows=(), seen={})))
    assert "No row has landed." in made.text


def test_an_estimate_stands_beside_what_it_came_to(mixed_rows: list[Row]) -> None:
    tokens = {"low": 90_000, "expected": 100_000, "high": 120_000}
    estimate = {
        "currency": "USD",
        "cost": {"low": 0.3, "expected": 0.4, "high": 0.6},
        "hours": {"low": 0.001, "expected": 0.002, "high": 0.003},
        "input_tokens": tokens,
        "output_tokens": tokens,
    }
    made = Page(render_run(make_summary(mixed_rows, estimate=estimate), sampled(mixed_rows)))
    assert "Estimate and actual" in made.text
    assert "$0.300$0.400$0.600$0.450" in "".join(made.text.split())


def test_rows_that_do_not_fit_are_left_out_and_counted(mixed_rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "MOST_BYTES", 30_000)
    made = Page(render_run(make_summary(mixed_rows), sampled(mixed_rows)))
    shown = len(made.named("details"))
    assert 3 < shown < 30
    assert f"{shown} of 100 failing rows are here" in made.text


def test_an_early_stop_says_what_it_saved(mixed_rows: list[Row]) -> None:
    early = {"known": True, "calls": {"planned": 3000, "made": 384, "saved": 2616}, "saved_usd": "3.81"}
    text = render_run(make_summary(mixed_rows, stop_when=early), sampled(mixed_rows))
    assert "384 of 3,000 calls were made: the answer is known. That saved 2,616 calls and about $3.81" in text


def test_the_names_of_lines_keep_a_width_however_many_models_stand_beside_them(mixed_rows: list[Row]) -> None:
    """Words may break anywhere on the page, so nothing else keeps such a column from the width of one letter."""
    assert re.search(
        r"^tbody th \{[^}]*min-width: 10\.5em;", render_run(make_summary(mixed_rows), sampled(mixed_rows)), re.MULTILINE
    )
