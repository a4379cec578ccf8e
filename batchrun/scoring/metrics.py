"""Scores, one at a time → the counts a report needs, in memory that does not grow with the rows.

`add` each score (of one model), `merge` the accumulators of shards, then `summary()`: a plain dict. Every rate says its
denominator, and one with nothing below the line is None, never 0. `infra_error` and `unscored` are outside all of
them. Repeats of a row are counted as (tries, right ones), which is all that pass@k and pass^k need; rows whose repeats
come one after another are forgotten as soon as the last is in. This module refuses to know intervals: `statistics`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from batchrun.records import NOT_IN_DENOMINATOR, CallScore, Score, ScoreDetail
from batchrun.statistics.exact import ExactSum

_NAMES_SHOWN: Final = 20

Verdict: TypeAlias = tuple[str, bool | None, float | None]
"""Outcome, `correct` and partial credit of one answer."""


class Tally:
    """Rows judged and right, of a whole run, a tag or a category."""

    __slots__ = ("correct", "credit", "outcomes", "rows", "scored")

    def __init__(self) -> None:
        """Begin with nothing."""
        self.rows = self.scored = self.correct = 0
        self.credit = ExactSum()
        self.outcomes: Counter[str] = Counter()

    def add(self, verdict: Verdict, times: int = 1) -> None:
        """Count one row, `times` over."""
        outcome, correct, credit = verdict
        self.rows += times
        self.outcomes[outcome] += times
        if outcome not in NOT_IN_DENOMINATOR:
            self.scored += times
            self.correct += times if correct else 0
            self.credit.add(credit or 0.0, times)

    def merge(self, other: Tally) -> None:
        """Add the counts of another tally."""
        self.rows += other.rows
        self.scored += other.scored
        self.correct += other.correct
        self.credit.merge(other.credit)
        self.outcomes += other.outcomes

    def summary(self) -> dict[str, Any]:
        """Return the counts, accuracy and mean credit."""
        return {
            "rows": self.rows,
            "scored": self.scored,
            "infra_error": self.outcomes["infra_error"],
            "unscored": self.outcomes["unscored"],
            "correct": self.correct,
            "accuracy": rate(self.correct, self.scored),
            "mean_score": self.credit.over(self.scored) if self.scored else None,
            "outcomes": dict(sorted(self.outcomes.items())),
        }


class ToolTally:
    """Calls expected, made and right of one tool, and their arguments."""

    __slots__ = ("arguments_expected", "arguments_given", "arguments_right", "called", "expected", "right")

    def __init__(self) -> None:
        """Begin with nothing."""
        self.expected = self.called = self.right = 0
        self.arguments_expected = self.arguments_given = self.arguments_right = 0

    def add(self, call: CallScore | ToolTally, times: int = 1) -> None:
        """Count one call, or all of another tally, `times` over."""
        self.expected += call.expected * times
        self.called += call.called * times
        self.right += call.right * times
        self.arguments_expected += call.arguments_expected * times
        self.arguments_given += call.arguments_given * times
        self.arguments_right += call.arguments_right * times

    def summary(self) -> dict[str, Any]:
        """Return the counts, and precision, recall and F1 of calls and of arguments."""
        return {
            "expected": self.expected,
            "called": self.called,
            "right": self.right,
            **f1(self.right, self.called, self.expected),
            "arguments": self.arguments(),
        }

    def arguments(self) -> dict[str, Any]:
        """Return the arguments' counts, precision, recall and F1."""
        return {
            "expected": self.arguments_expected,
            "given": self.arguments_given,
            "right": self.arguments_right,
            **f1(self.arguments_right, self.arguments_given, self.arguments_expected),
        }


class Repeats:
    """How many rows had n judged tries with c right: all that pass@k and pass^k need."""

    __slots__ = ("_open", "_repeats", "_rows")

    def __init__(self, repeats: int) -> None:
        """`repeats` tries are expected of each row."""
        self._repeats = repeats
        self._rows: Counter[tuple[int, int]] = Counter()
        self._open: dict[int, tuple[int, int, int]] = {}  # row → tries seen, judged, right

    def add_many(self, rows: Sequence[int], verdicts: Sequence[Verdict]) -> None:
        """Count one try of each of `rows`; the same row may come several times."""
        judged = [outcome not in NOT_IN_DENOMINATOR for outcome, _, _ in verdicts]
        right = [bool(counts and verdict[1]) for counts, verdict in zip(judged, verdicts, strict=True)]
        if self._repeats == 1:
            self._rows.update(zip(map(int, judged), map(int, right), strict=True))
            return
        for row, one, other in zip(rows, judged, right, strict=True):
            self.add(row, 1, int(one), int(other))

    def add(self, row: int, seen: int, judged: int, right: int) -> None:
        """Count tries of a row; close the row with its last."""
        before = self._open.pop(row, (0, 0, 0))
        now = (before[0] + seen, before[1] + judged, before[2] + right)
        if now[0] >= self._repeats:
            self._rows[now[1:]] += 1
        else:
            self._open[row] = now

    def merge(self, other: Repeats) -> None:
        """Add the rows of another; a row begun in both is put together."""
        self._rows += other._rows
        for row, tries in other._open.items():
            self.add(row, *tries)

    def summary(self) -> dict[str, Any]:
        """Return the unbiased pass@k and pass^k for each k up to the repeats, and over how many rows."""
        rows = self._rows + Counter(tries[1:] for tries in self._open.values())
        ks = range(1, self._repeats + 1)
        return {
            "repeats": self._repeats,
            "rows": {str(k): sum(count for (n, _), count in rows.items() if n >= k) for k in ks},
            "pass_at_k": {str(k): _mean(rows, k, pass_at_k) for k in ks},
            "pass_hat_k": {str(k): _mean(rows, k, pass_hat_k) for k in ks},
        }


class Metrics:
    """The accumulator: `add` every score of one model, then `summary()`."""

    def __init__(self, *, repeats: int = 1) -> None:
        """`repeats`: the job's `request.repeat`."""
        self.total = Tally()
        self.tags: dict[str, Tally] = {}
        self.categories: dict[str, Tally] = {}
        self.tools: dict[str, ToolTally] = {}
        self.hallucinated: Counter[str] = Counter()
        self._abstention: Counter[tuple[bool, bool]] = Counter()  # (called, should)
        self._counts: Counter[str] = Counter()
        self._repeats = Repeats(repeats)

    def add(self, score: Score, *, row: int, tags: Iterable[str] = (), category: str | None = None) -> None:
        """Count one score; `row` is the sample's index, the same for its repeats."""
        self.add_many([score], rows=[row], tags=[tuple(tags)], categories=[category])

    def add_many(
        self, scores: Sequence[Score], *, rows: Sequence[int], tags: Sequence[tuple[str, ...]], categories: Sequence[str | None]
    ) -> None:
        """Count scores, each with its row, tags and category; those alike are counted together."""
        verdicts: list[Verdict] = [(score.outcome, score.correct, score.score) for score in scores]
        for verdict, times in Counter(verdicts).items():
            self.total.add(verdict, times)
        for (tagged, verdict), times in Counter(zip(tags, verdicts, strict=True)).items():
            for tag in set(tagged):
                self.tags.setdefault(tag, Tally()).add(verdict, times)
        for (category, verdict), times in Counter(zip(categories, verdicts, strict=True)).items():
            if category is not None:
                self.categories.setdefault(category, Tally()).add(verdict, times)
        self._repeats.add_many(rows, verdicts)
        details = [score.detail for score in scores if score.detail is not None and score.outcome not in NOT_IN_DENOMINATOR]
        for detail, times in Counter(details).items():
            self._add_detail(detail, times)

    def merge(self, other: Metrics) -> None:
        """Add the counts of another accumulator with the same repeats."""
        self.total.merge(other.total)
        for mine, theirs in ((self.tags, other.tags), (self.categories, other.categories)):
            for name, tally in theirs.items():
                mine.setdefault(name, Tally()).merge(tally)
        for name, tools in other.tools.items():
            self.tools.setdefault(name, ToolTally()).add(tools)
        self.hallucinated += other.hallucinated
        self._abstention += other._abstention
        self._counts += other._counts
        self._repeats.merge(other._repeats)

    def summary(self) -> dict[str, Any]:
        """Return everything as plain values for JSON; rates are fractions, None where undefined."""
        counts = self._counts
        return {
            **self.total.summary(),
            "denominator": f"{self.total.scored} scored rows of {self.total.rows}; infra_error and unscored are left out",
            "by_tag": {name: self.tags[name].summary() for name in sorted(self.tags)},
            "by_category": {name: self.categories[name].summary() for name in sorted(self.categories)},
            "by_tool": {name: self.tools[name].summary() for name in sorted(self.tools)},
            "arguments": self._arguments(),
            "abstention": self._abstention_table(),
            "hallucinated": {
                "rows": counts["hallucinated_rows"],
                "calls": self.hallucinated.total(),
                "rate": rate(counts["hallucinated_rows"], counts["detailed"]),
                "names": dict(sorted(self.hallucinated.items(), key=lambda item: (-item[1], item[0]))[:_NAMES_SHOWN]),
            },
            "schema_valid": {
                "rows": counts["schema_valid"],
                "of": counts["schema_checked"],
                "rate": rate(counts["schema_valid"], counts["schema_checked"]),
            },
            "invalid_json": {
                "rows": counts["invalid_json_rows"],
                "calls": counts["invalid_json_calls"],
                "rate": rate(counts["invalid_json_rows"], counts["detailed"]),
            },
            "passes": self._repeats.summary(),
        }

    def _add_detail(self, detail: ScoreDetail, times: int) -> None:
        """Count what so many answers alike called."""
        counts = self._counts
        counts["detailed"] += times
        if detail.should_call is not None:
            self._abstention[detail.called, detail.should_call] += times
        if detail.schema_valid is not None:
            counts["schema_checked"] += times
            counts["schema_valid"] += detail.schema_valid * times
        if detail.invalid_json:
            counts["invalid_json_rows"] += times
            counts["invalid_json_calls"] += detail.invalid_json * times
        if detail.hallucinated:
            counts["hallucinated_rows"] += times
            for name in detail.hallucinated:
                self.hallucinated[name] += times
        for call in detail.calls:
            tally = self.tools.get(call.tool)
            if tally is None:
                tally = self.tools[call.tool] = ToolTally()
            tally.add(call, times)

    def _arguments(self) -> dict[str, Any]:
        """Return precision, recall and F1 of arguments: over all of them, and the mean over tools."""
        total = ToolTally()
        for tally in self.tools.values():
            total.add(tally)
        each = [tally.arguments() for tally in self.tools.values()]
        macro: dict[str, Any] = {}
        for measure in ("precision", "recall", "f1"):
            defined = [one[measure] for one in each if one[measure] is not None]
            macro[measure] = rate(math.fsum(defined), len(defined))
            macro[f"{measure}_tools"] = len(defined)
        return {"micro": total.arguments(), "macro": macro}

    def _abstention_table(self) -> dict[str, Any]:
        """Return called or not × should or not, and what follows from it; rows where both are right are left out."""
        called_right, called_wrong = self._abstention[True, True], self._abstention[True, False]
        silent_wrong, silent_right = self._abstention[False, True], self._abstention[False, False]
        should, should_not = called_right + silent_wrong, called_wrong + silent_right
        recall, specificity = rate(called_right, should), rate(silent_right, should_not)
        return {
            "called_should": called_right,
            "called_should_not": called_wrong,
            "silent_should": silent_wrong,
            "silent_should_not": silent_right,
            "call": {"precision": rate(called_right, called_right + called_wrong), "recall": recall},
            "abstain": {"precision": rate(silent_right, silent_right + silent_wrong), "recall": specificity},
            "balanced_accuracy": None if recall is None or specificity is None else (recall + specificity) / 2,
        }


def rate(part: float, whole: int) -> float | None:
    """Return part / whole, None where there is nothing to divide by."""
    return part / whole if whole else None


def f1(right: int, given: int, expected: int) -> dict[str, float | None]:
    """Return precision, recall and F1; F1 is undefined only where nothing was given and nothing expected."""
    return {"precision": rate(right, given), "recall": rate(right, expected), "f1": rate(2 * right, given + expected)}


def pass_at_k(n: int, c: int, k: int) -> float:
    """Return the chance that at least one of k tries, drawn without replacement of n with c right, is right.

    The unbiased estimator of Chen et al. 2021, "Evaluating Large Language Models Trained on Code".
    """
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def pass_hat_k(n: int, c: int, k: int) -> float:
    """Return the chance that all of k tries, drawn without replacement of n with c right, are right.

    The unbiased estimator of Yao et al. 2024, "tau-bench".
    """
    return math.comb(c, k) / math.comb(n, k)


def _mean(rows: Mapping[tuple[int, int], int], k: int, estimate: Any) -> float | None:
    """Return the mean estimate over the rows that have k judged tries."""
    enough = [(count, estimate(n, c, k)) for (n, c), count in sorted(rows.items()) if n >= k]
    return rate(math.fsum(count * value for count, value in enough), sum(count for count, _ in enough))
