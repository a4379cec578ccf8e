"""A user's own scorer, named `"pkg.module:Class"` in the job → one that never breaks a run.

The class is made once with the job's `scoring.scorer_options` as keyword arguments and has one method:

    def score(self, expected, tools, reply): ...

`expected` and `tools` are the row's decoded JSON (tools None where the row and the job have none), `reply` is the
`batchrun.records.Reply`. It returns True or False, a number in [0, 1] (1 is right), numpy's included, or a
`batchrun.records.Score`. One that raises, or returns anything else or a `Score` that contradicts itself, leaves its row
`unscored` with the reason: never a wrong answer.
A row without `expected` is not scored, and the class is not asked.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from batchrun.errors import JobError, Problem
from batchrun.records import NOT_IN_DENOMINATOR, Reply, Score, ScoreDetail
from batchrun.scoring.judge import unscored
from batchrun.scoring.values import NotJson, decode

_HINT = 'scorer = "pkg.module:Class", importable from where batchrun runs'


class CustomScorer:
    """Calls a user's scorer and turns what it returns, or raises, into a `Score`."""

    __slots__ = ("_scorer",)

    def __init__(self, scorer: Any) -> None:
        """Wrap an object with a `score` method."""
        self._scorer = scorer

    def score(self, expected: bytes | str | None, tools: bytes | str | None, reply: Reply) -> Score:
        """Ask the user's scorer about one answer."""
        if expected is None:
            return unscored("the row has no `expected`")
        try:
            wanted, known = decode(expected), None if tools is None else decode(tools)
        except NotJson as error:
            return unscored(f"`expected` or `tools` is not JSON: {error}")
        try:
            verdict = self._scorer.score(wanted, known, reply)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a user's code may raise anything; the row says what
            return unscored(f"{type(error).__name__}: {error}")
        return _as_score(verdict, reply)


def load_custom(name: str, options: Mapping[str, Any]) -> CustomScorer:
    """Import `pkg.module:Class` and make it with `options`; raises `JobError` when that cannot be done."""
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise _refused(f"{name!r} is not a module and a class")
    try:
        scorer = getattr(importlib.import_module(module), attribute)(**options)
    except Exception as error:
        raise _refused(f"{name} cannot be made: {type(error).__name__}: {error}") from error
    if not callable(getattr(scorer, "score", None)):
        raise _refused(f"{name} has no method `score(expected, tools, reply)`")
    return CustomScorer(scorer)


def _refused(what: str) -> JobError:
    """Build the error that names the field."""
    return JobError([Problem(message=what, field="scoring.scorer", hint=_HINT)])


def _as_score(verdict: object, reply: Reply) -> Score:
    """Turn what a user's scorer returned into a score."""
    if isinstance(verdict, Score):
        return _checked(replace(verdict, correct=_plain(verdict.correct), score=_plain(verdict.score)))
    verdict = _plain(verdict)
    if isinstance(verdict, int | float) and 0 <= verdict <= 1:
        detail = ScoreDetail(should_call=None, called=bool(reply.tool_uses))
        if verdict == 1:
            return Score(outcome="correct", correct=True, score=1.0, detail=detail)
        why = f"the scorer gave {verdict}"
        return Score(outcome="wrong_call", correct=False, score=float(verdict), explanation=why, detail=detail)
    return unscored(f"the scorer returned {verdict!r}: not a Score, a bool or a number in [0, 1]")


def _checked(score: Score) -> Score:
    """Return a user's `Score` if it holds what its fields say: what is counted later must be of those types."""
    try:
        checked = msgspec.convert(msgspec.to_builtins(score), Score)
    except (TypeError, ValueError, OverflowError) as error:
        return unscored(f"the scorer returned a Score that is none: {error}")
    if checked.score is not None and not 0 <= checked.score <= 1:
        return unscored(f"the scorer returned {checked.score}: not a number in [0, 1]")
    decided = checked.outcome not in NOT_IN_DENOMINATOR
    if checked.correct is not ((checked.outcome == "correct") if decided else None):
        return unscored(f"the scorer returned a Score that contradicts itself: {checked.outcome} and correct={checked.correct}")
    return checked


def _plain(verdict: Any) -> Any:
    """Return Python's own value for a scalar of numpy's, whose bools and single floats are none to Python."""
    return verdict.item() if type(verdict).__module__ == "numpy" and getattr(verdict, "ndim", None) == 0 else verdict
