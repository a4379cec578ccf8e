"""Several runs side by side, a comparison, a history, and Markdown."""

from __future__ import annotations

from typing import Any

import pytest

from batchrun.records import Row
from batchrun.report.markdown import render_comparison_markdown, render_markdown, text
from batchrun.report.more_pages import render_comparison, render_history, render_runs
from batchrun.report.page_rows import Shown
from batchrun.statistics.compare import Answer, Comparison, compare
from tests.report.conftest import MODEL, make_row, make_summary, right_row
from tests.report.test_page import HOSTILE, Page


def comparison(*, tags: int = 3) -> Comparison:
    def answers(wrong: int) -> dict[tuple[str, str, int], Answer]:
        return {
            ("", f"row-{n}", 0): Answer(
                correct=n >= wrong, tags=(f"tag-{n % tags}",), cost_usd=0.01 * n, latency_ms=100.0 + n + wrong
            )
            for n in range(60)
        }

    return compare(answers(4), answers(24))


def history_row(number: int, **changes: Any) -> dict[str, Any]:
    row = {
        "run_id": f"2025112{number}T060000Z-aaaaa{number}",
        "model": MODEL,
        "exit_code": 0,
        "stopped": None,
        "gates_passed": True,
        "simulated": False,
        "dataset_digest": "d1",
        "profile": "default",
        "rows": 300,
        "errored": 1,
        "scored": 299,
        "accuracy": 0.9,
        "accuracy_low": 0.86,
        "accuracy_high": 0.93,
        "cost_usd": 0.45,
        "latency_p50_ms": 300.0,
        "latency_p95_ms": 900.0,
        "batchrun_version": "0.1.0",
    }
    return {**row, **changes}


def test_runs_stand_side_by_side(mixed_rows: list[Row]) -> None:
    runs = [make_summary(mixed_rows, run_id="run-a"), make_summary([right_row(0)], run_id="run-b", dataset_digest="other")]
    page = Page(render_runs(runs))
    assert page.open == []
    assert f"{MODEL} · run-a" in page.text
    assert f"{MODEL} · run-b" in page.text
    assert "different datasets" in page.text


def test_a_comparison_shows_the_rows_that_changed() -> None:
    before, after = make_summary([make_row(0)], run_id="run-a"), make_summary([right_row(0)], run_id="run-b")
    flip = Shown(make_row(30), None), Shown(right_row(30), b'[{"role": "user", "content": "Oslo?"}]')
    page = Page(render_comparison(comparison(), before, after, lost=[flip]))
    assert page.open == []
    assert "B is worse" in page.text
    assert "1 of 20 rows." in page.text
    assert "Oslo?" in page.text


def test_nothing_in_common_has_a_page_and_a_comment() -> None:
    none = compare({}, {})
    run = make_summary([make_row(0)])
    assert "No row has a verdict in both runs" in Page(render_comparison(none, run, run)).text
    assert "no row has a verdict" in render_comparison_markdown(none, run, run)


def test_a_history_tells_where_it_changed() -> None:
    rows = [
        history_row(1),
        history_row(2, dataset_digest="d2"),
        history_row(3, dataset_digest="d2", accuracy=0.7, accuracy_low=0.65, accuracy_high=0.75, gates_passed=False),
        history_row(4, dataset_digest="d2", accuracy=None, accuracy_low=None, accuracy_high=None, stopped="the budget is spent"),
    ]
    page = Page(render_history(rows, job="weather"))
    assert page.open == []
    body = page.text
    assert "accuracy −20.0%, intervals apart" in body
    assert body.index("20251124") < body.index("20251121")  # the latest first
    assert body.count("gate failed") == 1
    assert body.count("stopped") == 1
    assert "dataset" in body
    assert "Accuracy with its interval" in body


def test_a_job_that_never_ran_has_a_page() -> None:
    assert "No run of this job has ended yet." in Page(render_history([])).text


@pytest.mark.parametrize("bad", HOSTILE)
def test_hostile_names_stay_text_in_every_page(bad: str) -> None:
    def shapes(word: str) -> list[list[tuple[str, list[str]]]]:
        row = make_row(0, id=word, model=word, tags=(word,))
        runs = [make_summary([row], run_id=word, job=word), make_summary([right_row(1)], run_id="b", job="b")]
        flip = Shown(row, None), Shown(right_row(0, id=word), None)
        pages = [
            render_runs(runs),
            render_comparison(comparison(), runs[0], runs[1], lost=[flip], gained=[flip]),
            render_history([history_row(1, model=word, run_id=word), history_row(2, model=word)], job=word),
        ]
        return [[(tag, sorted(attributes)) for tag, attributes in Page(page).tags] for page in pages]

    assert shapes(bad) == shapes("harmless")


def test_markdown_is_short_and_has_gates_and_failures(mixed_rows: list[Row]) -> None:
    gates = [{"name": "min_accuracy", "passed": False, "detail": "accuracy is 66.0%"}]
    failing = [row for row in mixed_rows if row.outcome != "correct"]
    made = render_markdown([make_summary(mixed_rows, gates=gates)], failing, links=["page: report.html"])
    assert made.startswith("### weather\n")
    assert "- ❌ gate min\\_accuracy: accuracy is 66.0%" in made
    assert made.count("| row-") == 10
    assert made.rstrip().endswith("page: report.html")
    assert len(made) < 6_000


def test_markdown_of_several_runs_has_a_column_each(mixed_rows: list[Row]) -> None:
    made = render_markdown([make_summary(mixed_rows, run_id="a"), make_summary(mixed_rows, run_id="b", stopped="budget")])
    assert "over different datasets" not in made
    other = make_summary(mixed_rows, run_id="c", dataset_digest="another")
    assert "over different datasets" in render_markdown([make_summary(mixed_rows), other])
    head = next(line for line in made.splitlines() if line.startswith("|"))
    assert head.count("|") == 4
    assert "(stopped early)" in made


def test_markdown_of_a_comparison_keeps_the_clearest_tags() -> None:
    run = make_summary([make_row(0)])
    made = render_comparison_markdown(comparison(tags=20), run, run)
    assert "12 tags more" in made
    assert made.count("| tag tag-") == 8
    assert "Lost (20): row-" in made


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("a|b", "a\\|b"),
        ("<b>", "&lt;b&gt;"),
        ("[x](http://evil.example)", "\\[x\\](http:\u200b//evil.example)"),
        ("@team #12 www.evil.example", "@\u200bteam \\#\u200b12 www\u200b.evil.example"),
        ("`code` *b* _i_", "\\`code\\` \\*b\\* \\_i\\_"),
        ("a\nb\x00", "a b␀"),
        ("&amp;", "&amp;amp;"),
    ],
)
def test_words_of_others_are_no_markdown(given: str, shown: str) -> None:
    assert text(given) == shown
