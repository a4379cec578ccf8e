"""An answer and its `expected` → `Score`: the `default` and `exact` profiles.

The first line that fits names the outcome:

    unscored           no `expected`, or `expected` or `tools` that cannot be read
    refused            the stop reason is a refusal
    truncated          a call was cut, or the answer was cut by its token limit before any call
    unexpected_call    no call was right and there is one, whatever it holds
    correct            any call was right and there is one, whatever it holds
    invalid_json       arguments of a call do not parse to an object
    unknown_tool       a call of a name that no tool has (only where tools are known)
    schema_violation   a call that breaks its tool's `input_schema`
    correct            the calls are those expected
    truncated          calls are missing and the answer was cut by its token limit
    missing_call       fewer calls than expected, or with extra calls allowed none for an expected one
    extra_call         more calls than expected
    wrong_call         as many calls, and a name, an argument or (in strict order) the order is not right

Calls are matched to expected calls within their name by optimal assignment, so the verdict does not depend on the
order of calls, keys or tools. `score` is the partial credit: each pair counts (1 + right arguments) of (1 + right,
wrong, missing and surplus ones), over the larger number of calls; of several alternatives the best one counts.
Allowed extra calls cost nothing, and still may not be broken, unknown or against their schema.
This module refuses to know models, costs and files.
"""

from __future__ import annotations

import math
from typing import Final, TypeAlias

from msgspec import Struct

from batchrun.records import CallScore, OutcomeKind, Reply, Score, ScoreDetail
from batchrun.scoring import explain
from batchrun.scoring.answers import Call, read_calls
from batchrun.scoring.assign import Pairs, assign, assign_in_order, full_matches
from batchrun.scoring.cache import FEW, MAX_ENTRIES, Cache
from batchrun.scoring.expected import Abstain, AnyCall, Calls, Expected, ExpectedCall, parse_expected
from batchrun.scoring.schema import NO_TOOLS, ToolSet, parse_tools
from batchrun.scoring.values import NESTED, Json, NotJson, decode

REFUSALS: Final = frozenset({"refusal"})
CUTS: Final = frozenset({"max_tokens", "model_context_window_exceeded"})

MAX_TABLE: Final = 250_000  # pairs tried for one name: about a second


class Fit(Struct, frozen=True, gc=False):
    """How well one call fits one expected call, in arguments."""

    right: int
    wrong: int  # wrong, missing or surplus
    expected: int
    given: int

    @property
    def similarity(self) -> float:
        """The share of a right call, 1 for one with nothing wrong."""
        return (1 + self.right) / (1 + self.right + self.wrong)


FitPairs: TypeAlias = tuple[tuple[int, int, Fit], ...]
"""(expected, made, fit) by expected."""


class Matching(Struct, frozen=True, gc=False):
    """The calls of one alternative held against the calls made."""

    wanted: Calls
    pairs: FitPairs
    score: float
    right: bool

    @property
    def partial(self) -> float:
        """The credit of a wrong answer: where the pairs are right, the fault beside them counts as one call not made."""
        rows = len(self.wanted.calls)
        return self.score if self.score < 1 else rows / (rows + 1)


class Judge:
    """Scores answers in the `default` profile, or `exact`; keeps what it parsed of equal texts."""

    __slots__ = ("_exact", "_expected", "_extra_allowed", "_right", "_strict", "_tools")

    def __init__(self, *, exact: bool = False, strict: bool = False, extra_allowed: bool = False) -> None:
        """`strict`: calls in the expected order; `extra_allowed`: further calls are not wrong."""
        self._exact = exact
        self._strict = strict
        self._extra_allowed = extra_allowed
        self._expected: Cache[Expected] = Cache(lambda text: parse_expected(text, exact=exact), most=FEW)
        self._tools: Cache[ToolSet] = Cache(parse_tools)
        self._right: dict[tuple[str, int], Score] = {}

    def score(self, expected: bytes | str | None, tools: bytes | str | None, reply: Reply) -> Score:
        """Judge one answer; `expected` and `tools` are JSON texts. Never raises for any text."""
        if expected is None:
            return unscored("the row has no `expected`")
        toolset = NO_TOOLS if tools is None else self._tools.get(tools)
        calls = [] if toolset.problem else read_calls(reply, toolset)
        if len(calls) == 1 and (right := self._as_written(expected, calls[0], reply)) is not None:
            return right
        plan = self._expected.get(expected)
        if plan.flaws:
            flaw = plan.flaws[0]
            return unscored(f"`expected`{flaw.path and ' at ' + flaw.path}: {flaw.message}")
        if toolset.problem:
            return unscored(toolset.problem)
        best = self._best(plan, calls)
        outcome, why = self._outcome(plan, calls, best, reply, toolset)
        correct = outcome == "correct"
        credit = 1.0 if correct else 0.0 if best is None or outcome == "refused" else best.partial
        line = None if why is None else explain.cut(why)
        return Score(outcome=outcome, correct=correct, score=credit, explanation=line, detail=_detail(plan, calls, best, toolset))

    def _as_written(self, expected: bytes | str, call: Call, reply: Reply) -> Score | None:
        """Return the score of a call that is the only one expected, to the letter, as most are; None for any other answer.

        Both are JSON, and plain values of equal types that are equal are the same by any rule: nothing need be compiled.
        """
        given = call.arguments
        if given is None or call.tool is None or not call.valid or reply.stop_reason in REFUSALS:
            return None
        wanted = _only_call(expected)
        if wanted is None or wanted.get("name") != call.name or (named := wanted.get("arguments")) != given:
            return None
        for name, value in given.items():
            if type(value) is not type(named[name]) or type(value) in NESTED:
                return None
        alike = (call.name, len(given))
        score = self._right.get(alike)
        if score is None:
            if len(self._right) >= MAX_ENTRIES:
                self._right.clear()
            counts = dict.fromkeys(("arguments_expected", "arguments_given", "arguments_right"), len(given))
            made = CallScore(tool=call.name, expected=True, called=True, right=True, **counts)
            detail = ScoreDetail(should_call=True, called=True, schema_valid=True, calls=(made,))
            score = self._right[alike] = Score(outcome="correct", correct=True, score=1.0, detail=detail)
        return score

    def _best(self, plan: Expected, calls: list[Call]) -> Matching | None:
        """Return the matching of the alternative that fits best, None where no alternative has calls."""
        best: Matching | None = None
        for alternative in plan.alternatives:
            if isinstance(alternative, Calls):
                found = self._match(alternative, calls)
                if best is None or (found.right, found.score) > (best.right, best.score):
                    best = found
        return best

    def _outcome(
        self, plan: Expected, calls: list[Call], best: Matching | None, reply: Reply, tools: ToolSet
    ) -> tuple[OutcomeKind, str | None]:
        """Return the outcome and its explanation: the table in the module's docstring, from top to bottom."""
        ended_by_limit = reply.stop_reason in CUTS
        if reply.stop_reason in REFUSALS:
            return "refused", "the model refused"
        if (severed := _severed(calls, ended_by_limit=ended_by_limit)) is not None:
            return "truncated", f"{explain.label(severed)}: cut before its arguments ended"
        if not calls:
            return _without_calls(plan, best, ended_by_limit=ended_by_limit)
        return self._with_calls(plan, calls, best, tools, ended_by_limit=ended_by_limit)

    def _with_calls(
        self, plan: Expected, calls: list[Call], best: Matching | None, tools: ToolSet, *, ended_by_limit: bool
    ) -> tuple[OutcomeKind, str | None]:
        """Return the outcome of an answer whose calls are whole."""
        if any(isinstance(way, AnyCall) for way in plan.alternatives):
            return "correct", None
        if best is None:
            return "unexpected_call", f"{explain.label(calls[0])}: no call was right"
        if (broken := _broken(calls, tools)) is not None:
            return broken
        return ("correct", None) if best.right else self._mismatch(best, calls, ended_by_limit=ended_by_limit)

    def _mismatch(self, best: Matching, calls: list[Call], *, ended_by_limit: bool) -> tuple[OutcomeKind, str]:
        """Name what is wrong between sound calls and the expected ones."""
        wanted, taken = best.wanted.calls, {made for _, made, _ in best.pairs}
        found = {row for row, _, _ in best.pairs}
        lost = [call for row, call in enumerate(wanted) if row not in found]
        spare = [call for index, call in enumerate(calls) if index not in taken]
        if lost and (len(calls) < len(wanted) or self._extra_allowed):
            if ended_by_limit:
                return "truncated", f"cut by the token limit before {explain.wanted(lost[0])}"
            return "missing_call", f"no call of {explain.wanted(lost[0])}"
        if len(calls) > len(wanted) and not self._extra_allowed:
            return "extra_call", f"{explain.label(spare[0])}: not expected"
        for row, made, fit in best.pairs:
            if fit.wrong:
                return "wrong_call", explain.argument(calls[made], wanted[row], exact=self._exact)
        if spare[0].name == lost[0].name:
            return "wrong_call", f"{explain.label(spare[0])}: not in its place in the expected order"
        return "wrong_call", f"{explain.label(spare[0])}: expected {explain.wanted(lost[0])}"

    def _match(self, wanted: Calls, calls: list[Call]) -> Matching:
        """Hold the calls made against those of one alternative."""
        pairs = self._pairs(wanted.calls, calls)
        rows, columns = len(wanted.calls), len(calls)
        full = len(pairs) == rows and (columns == rows or (self._extra_allowed and columns > rows))
        right = full and not any(fit.wrong for _, _, fit in pairs)
        shares = [_credit(calls[made], fit) for _, made, fit in pairs]
        of = rows if self._extra_allowed else max(rows, columns)
        return Matching(wanted, pairs, math.fsum(shares) / of, right)

    def _pairs(self, wanted: tuple[ExpectedCall, ...], calls: list[Call]) -> FitPairs:
        """Pair expected calls with calls made, within one name (in strict order over all of them)."""
        if len(wanted) == 1 and len(calls) == 1:
            alone = self._fit(wanted[0], calls[0])
            return () if alone is None else ((0, 0, alone),)
        if self._strict:
            return self._paired(wanted, calls, list(range(len(wanted))), list(range(len(calls))))
        found: list[tuple[int, int, Fit]] = []
        for name in dict.fromkeys(call.name for call in wanted):
            rows = [row for row, call in enumerate(wanted) if call.name == name]
            columns = [column for column, call in enumerate(calls) if call.name == name]
            found.extend(self._paired(wanted, calls, rows, columns))
        return tuple(sorted(found, key=lambda pair: pair[0]))

    def _paired(self, wanted: tuple[ExpectedCall, ...], calls: list[Call], rows: list[int], columns: list[int]) -> FitPairs:
        """Return the best pairs of some expected calls and some calls made; of a flood of calls, only the first ones."""
        columns = columns[: MAX_TABLE // max(len(rows), 1)]
        fits = [[self._fit(wanted[row], calls[column]) for column in columns] for row in rows]
        table = [[0.0 if fit is None else fit.similarity for fit in line] for line in fits]
        if self._strict:
            pairs = assign_in_order(table)
        elif len(rows) != len(columns) or len(pairs := full_matches(table)) != len(rows):
            pairs = _assign_sorted(table, [wanted[row].order for row in rows], [calls[column].order for column in columns])
        return tuple((rows[i], columns[j], fit) for i, j in pairs if (fit := fits[i][j]) is not None)

    def _fit(self, wanted: ExpectedCall, call: Call) -> Fit | None:
        """Hold one call against one expected call; None where the name differs or there are no arguments."""
        given = call.arguments
        if given is None or call.name != wanted.name:
            return None
        right = wrong = found = 0
        for name, entry in wanted.arguments.items():
            if name in given:
                found += 1
                if entry.matcher.right(given[name]):
                    right += 1
                else:
                    wrong += 1
            elif not entry.optional:
                wrong += 1
        expected = right + wrong
        if found < len(given):
            surplus = self._surplus(wanted, call, given)
            return Fit(right, wrong + surplus, expected, found + surplus)
        return Fit(right, wrong, expected, found)

    def _surplus(self, wanted: ExpectedCall, call: Call, given: dict[str, object]) -> int:
        """Count arguments that are not named in `expected` and are not the schema's own default."""
        tool, named, surplus = call.tool, wanted.arguments, 0
        for name, value in given.items():
            if name not in named and not (tool is not None and tool.is_default(name, value, exact=self._exact)):
                surplus += 1
        return surplus


def unscored(why: str) -> Score:
    """Return the score of a row that cannot be judged: outside accuracy's denominator."""
    return Score(outcome="unscored", correct=None, score=None, explanation=explain.cut(why))


def _only_call(expected: bytes | str) -> dict[str, Json] | None:
    """Return the call of an `expected` that is a list of one; None for any other text."""
    try:
        raw = decode(expected)
    except NotJson:
        return None
    return raw[0] if type(raw) is list and len(raw) == 1 and type(raw[0]) is dict else None


def _assign_sorted(table: list[list[float]], row_keys: list[str], column_keys: list[str]) -> Pairs:
    """Assign in an order made from the content, so that of equal optima it is always the same one."""
    rows = sorted(range(len(row_keys)), key=row_keys.__getitem__)
    columns = sorted(range(len(column_keys)), key=column_keys.__getitem__)
    return [(rows[i], columns[j]) for i, j in assign([[table[row][column] for column in columns] for row in rows])]


def _severed(calls: list[Call], *, ended_by_limit: bool) -> Call | None:
    """Return the call that the answer's end cut, if there is one."""
    for call in calls:
        if call.error == "truncated" or (call.error is not None and ended_by_limit and call is calls[-1]):
            return call
    return None


def _without_calls(plan: Expected, best: Matching | None, *, ended_by_limit: bool) -> tuple[OutcomeKind, str | None]:
    """Name the outcome of an answer without a call."""
    if ended_by_limit:
        return "truncated", "cut by the token limit before any call"
    if any(isinstance(way, Abstain) for way in plan.alternatives):
        return "correct", None
    return "missing_call", f"no call of {explain.wanted(best.wanted.calls[0])}" if best else "no call"


def _broken(calls: list[Call], tools: ToolSet) -> tuple[OutcomeKind, str] | None:
    """Return the outcome of the first call that is broken, unknown or against its schema, in this order."""
    for call in calls:
        if call.arguments is None:
            return "invalid_json", f"{explain.label(call)}: {call.error}"
    for call in calls:
        if call.tool is None and tools.known:
            return "unknown_tool", f"{explain.label(call)}: no such tool"
    for call in calls:
        if call.tool is not None and not call.valid:
            return "schema_violation", explain.violation(call, call.tool)
    return None


def _credit(call: Call, fit: Fit) -> float:
    """Return a pair's share of a right call; breaking the schema counts as one more wrong argument."""
    return fit.similarity if call.valid else (1 + fit.right) / (2 + fit.right + fit.wrong)


def _detail(plan: Expected, calls: list[Call], best: Matching | None, tools: ToolSet) -> ScoreDetail:
    """Count what the metrics need."""
    checked = [call for call in calls if call.tool is not None or tools.known]
    return ScoreDetail(
        should_call=plan.should_call,
        called=bool(calls),
        schema_valid=all(call.valid and call.tool is not None for call in checked) if checked else None,
        invalid_json=sum(call.arguments is None for call in calls),
        hallucinated=tuple(call.name for call in calls if call.tool is None) if tools.known else (),
        calls=_call_scores(calls, best),
    )


def _call_scores(calls: list[Call], best: Matching | None) -> tuple[CallScore, ...]:
    """List each pair, each expected call that was not made and each call that was not expected."""
    scores: list[CallScore] = []
    made: set[int] = set()
    pairs = {} if best is None else {row: (column, fit) for row, column, fit in best.pairs}
    for row, wanted in enumerate(() if best is None else best.wanted.calls):
        if row in pairs:
            column, fit = pairs[row]
            made.add(column)
            scores.append(_pair_score(wanted, calls[column], fit))
        else:
            named = sum(not entry.optional for entry in wanted.arguments.values())
            scores.append(CallScore(tool=wanted.name, expected=True, called=False, right=False, arguments_expected=named))
    for column, call in enumerate(calls):
        if column not in made:
            given = len(call.arguments or ())
            scores.append(CallScore(tool=call.name, expected=False, called=True, right=False, arguments_given=given))
    return tuple(scores)


def _pair_score(wanted: ExpectedCall, call: Call, fit: Fit) -> CallScore:
    return CallScore(
        tool=wanted.name,
        expected=True,
        called=True,
        right=not fit.wrong and call.valid,
        arguments_expected=fit.expected,
        arguments_given=fit.given,
        arguments_right=fit.right,
    )
