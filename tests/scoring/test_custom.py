"""A user's own scorer: loaded by name, asked with decoded values, never able to break a run."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from batchrun.errors import UsageError
from batchrun.job import Scoring
from batchrun.records import CallScore, Score, ScoreDetail
from batchrun.scoring import open_scorer
from batchrun.scoring.answers import reply_from_calls

REPLY = reply_from_calls([{"name": "f", "input": {}}])


class Returning:
    """Returns its option, raises it, or calls it."""

    def __init__(self, verdict: Any = True) -> None:  # noqa: FBT002 - any verdict
        self.verdict = verdict

    def score(self, expected: Any, tools: Any, reply: Any) -> Any:
        """Give the verdict."""
        assert (expected, tools, reply.tool_uses[0].name) == ([], None, "f")
        if isinstance(self.verdict, BaseException):
            raise self.verdict
        return self.verdict


class Raising:
    """Cannot be made."""

    def __init__(self) -> None:
        raise KeyError("model")


@pytest.fixture(autouse=True)
def _module() -> Iterator[None]:
    module = types.ModuleType("someones_scorers")
    module.__dict__.update(Returning=Returning, Raising=Raising, Empty=object)
    sys.modules["someones_scorers"] = module
    yield
    del sys.modules["someones_scorers"]


def judged(verdict: Any, expected: str | None = "[]", tools: str | None = None) -> Score:
    scorer = open_scorer(Scoring(scorer="someones_scorers:Returning", scorer_options={"verdict": verdict}))
    return scorer.score(expected, tools, REPLY)


@pytest.mark.parametrize(
    ("verdict", "outcome", "credit"),
    [
        (True, "correct", 1.0),
        (1, "correct", 1.0),
        (False, "wrong_call", 0.0),
        (0.5, "wrong_call", 0.5),
        (np.bool_(True), "correct", 1.0),  # noqa: FBT003 - a verdict
        (np.float32(0.5), "wrong_call", 0.5),
        (np.int64(1), "correct", 1.0),
        (np.array(0.5), "wrong_call", 0.5),
        (Score(outcome="correct", correct=np.bool_(True), score=np.float32(1)), "correct", 1.0),  # type: ignore[arg-type]  # noqa: FBT003 - a user's code is not checked
    ],
)
def test_a_bool_or_a_number_is_a_verdict(verdict: Any, outcome: str, credit: float) -> None:
    result = judged(verdict)
    assert (result.outcome, result.correct, result.score) == (outcome, outcome == "correct", credit)


def test_a_score_is_taken_as_it_is() -> None:
    given = Score(outcome="refused", correct=False, score=0.0)
    assert judged(given) == given


def test_a_score_with_lists_for_tuples_is_read_as_it_is_meant() -> None:
    call = CallScore(tool="t", expected=True, called=True, right=True)
    detail = ScoreDetail(should_call=True, called=True, calls=[call])  # type: ignore[arg-type] # a user's code is not checked
    result = judged(Score(outcome="correct", correct=True, score=1, detail=detail))
    assert result.detail is not None
    assert result.detail.calls == (call,)


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (Score(outcome="good", correct=True, score=1.0), "the scorer returned a Score that is none: Invalid enum value 'good'"),  # type: ignore[arg-type] # a user's code is not checked
        (Score(outcome="correct", correct=True, score=object()), "the scorer returned a Score that is none: "),  # type: ignore[arg-type] # a user's code is not checked
        (Score(outcome="correct", correct=True, score=2.0), "the scorer returned 2.0: not a number in [0, 1]"),
        (Score(outcome="correct", correct=True, score=float("nan")), "the scorer returned nan: not a number in [0, 1]"),
        *(
            (
                Score(outcome=outcome, correct=correct, score=None),  # type: ignore[arg-type] # a user's code is not checked
                f"the scorer returned a Score that contradicts itself: {outcome} and correct={correct}",
            )
            for outcome, correct in [
                ("correct", False),
                ("correct", None),
                ("wrong_call", True),
                ("refused", None),
                ("infra_error", True),
                ("infra_error", False),
                ("unscored", False),
            ]
        ),
    ],
)
def test_a_score_that_cannot_be_counted_leaves_its_row_unscored(score: Score, message: str) -> None:
    result = judged(score)
    assert (result.outcome, result.correct) == ("unscored", None)
    assert (result.explanation or "").startswith(message)


@pytest.mark.parametrize(
    ("verdict", "message"),
    [
        (ValueError("no such unit"), "ValueError: no such unit"),
        (SystemExit(3), "SystemExit: 3"),
        (RecursionError("deep"), "RecursionError: deep"),
        (None, "the scorer returned None: not a Score, a bool or a number in [0, 1]"),
        (np.array([1, 0]), "the scorer returned array([1, 0]): not a Score, a bool or a number in [0, 1]"),
        (1.5, "the scorer returned 1.5: not a Score, a bool or a number in [0, 1]"),
        (float("nan"), "the scorer returned nan: not a Score, a bool or a number in [0, 1]"),
    ],
)
def test_one_that_raises_or_says_nothing_leaves_its_row_unscored(verdict: Any, message: str) -> None:
    result = judged(verdict)
    assert (result.outcome, result.correct, result.explanation) == ("unscored", None, message)


def test_a_row_without_a_readable_expected_is_not_asked_about() -> None:
    assert judged(1, expected=None).outcome == "unscored"
    assert judged(1, expected="{").outcome == "unscored"
    assert judged(1, tools="{").outcome == "unscored"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("someones_scorers", {}),
        (":Returning", {}),
        ("someones_scorers:", {}),
        ("no_such_module_anywhere:X", {}),
        ("someones_scorers:Missing", {}),
        ("someones_scorers:Raising", {}),
        ("someones_scorers:Returning", {"unknown": 1}),
        ("someones_scorers:Empty", {}),
    ],
)
def test_one_that_cannot_be_made_is_a_usage_error(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        open_scorer(Scoring(scorer=name, scorer_options=options))
    assert caught.value.hint
