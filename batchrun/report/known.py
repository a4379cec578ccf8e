"""The rows of a run that may stop early, as they pass in input order → what it knew when it stopped, and what that saved.

The verdicts are put into the order of the draw and played again, so that what a summary says follows from the journal alone:
a run stopped and resumed, or scored again, says the same. A row that has not landed ends what can be used: those
behind it came back sooner, and are not drawn at random. The ordinary interval stays beside the honest one, marked.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Self

from batchrun.job import Job, StopWhen
from batchrun.records import Sample
from batchrun.statistics.draw import draw_order
from batchrun.statistics.sequential import ConfidenceSequence
from batchrun.statistics.stopping import Stopping

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

METHOD: Final = "confidence sequence, hedged capital (Waudby-Smith and Ramdas 2024), of this dataset's rows; valid at any stop"
NOT_VALID: Final = "; not valid where a run may stop early"
_NO_VERDICT: Final = -1.0
_NOT_LANDED: Final = -2.0


class KnownTally:
    """Gathers the verdicts of a run by model, a few bytes a row."""

    def __init__(self, job: Job, rule: StopWhen, others: Mapping[str, Mapping[str, float]]) -> None:
        """`others` is what each model is held against, by row id."""
        self._rule, self._others = rule, others
        self._repeats, self._seed, self._judges_all = job.request.repeat, job.scoring.seed, job.scoring.scorer is not None
        self._rows = array("q")
        self._values = {model: array("d") for model in job.request.model}
        self._theirs = {model: array("d") for model in others}
        self._population = 0
        self._pairs = dict.fromkeys(job.request.model, 0)

    def add_many(self, samples: Sequence[Sample], columns: Mapping[str, Sequence[Any]]) -> None:
        """Take note of samples, and of the verdicts on their landed repeats by the columns of these."""
        first, place_of = len(self._rows), {sample.index: place for place, sample in enumerate(samples)}
        for sample in samples:
            self._see(sample)
        verdicts: dict[tuple[str, int], list[bool | None]] = {}
        for model, index, correct in zip(columns["model"], columns["index"], columns["correct"], strict=True):
            verdicts.setdefault((model, index), []).append(correct)
        for (model, index), repeats in verdicts.items():
            if len(repeats) == self._repeats:
                known = [float(correct) for correct in repeats if correct is not None]
                self._values[model][first + place_of[index]] = sum(known) / len(known) if known else _NO_VERDICT

    def merge(self, other: Self) -> None:
        """Add what another tally gathered of the rows behind those seen here."""
        self._rows.extend(other._rows)
        self._population += other._population
        for mine, theirs in ((self._values, other._values), (self._theirs, other._theirs)):
            for model, values in theirs.items():
                mine[model].extend(values)
        for model, pairs in other._pairs.items():
            self._pairs[model] += pairs

    def _see(self, sample: Sample) -> None:
        """Take note of a sample that has not landed as far as is known."""
        self._rows.append(sample.index)
        scorable = sample.problem is None and (sample.expected is not None or self._judges_all)
        self._population += scorable
        for values in self._values.values():
            values.append(_NOT_LANDED)
        for model, theirs in self._theirs.items():
            other = self._others[model].get(sample.id)
            theirs.append(_NO_VERDICT if other is None else other)
            self._pairs[model] += scorable and other is not None

    def apply(self, summary: dict[str, Any]) -> None:
        """Put what is known into a run's summary: `stop_when`, and the honest interval as each model's `accuracy`."""
        import numpy as np  # noqa: PLC0415 - only for those who stop early

        order = draw_order(np.frombuffer(self._rows, dtype=np.int64), self._seed)
        found = [self._known(model, order) for model in summary["models"]]
        rows = summary["rows"]
        known = all(one["reason"] is not None for one in found)
        saved = rows["total"] - rows["landed"] if known else 0
        summary["stop_when"] = {
            "ci_half_width": self._rule.ci_half_width,
            "decided_against": self._rule.decided_against,
            "alpha": self._rule.alpha,
            "known": known,
            "calls": {"planned": rows["total"], "made": rows["landed"], "saved": saved},
            "saved_usd": _saved_usd(summary["models"], saved, rows["total"]),
            "models": found,
        }

    def _known(self, model: dict[str, Any], order: NDArray[np.int64]) -> dict[str, Any]:
        """Return what is known of one model, and lay its interval over the ordinary one in the model's summary."""
        name = model["model"]
        stopping = self._played(name, order)
        own, gap = stopping.intervals()
        for ordinary in (model["accuracy"], model["score"], *model["tags"]):
            ordinary["method"] += NOT_VALID
        model["accuracy_if_not_stopped"] = model["accuracy"]
        honest = {
            "low": own.low,
            "high": own.high,
            "n": stopping.accuracy.n,
            "confidence": 1 - self._rule.alpha,
            "method": METHOD,
        }
        if model["accuracy"]["value"] is not None:
            model["accuracy"] = {**model["accuracy"], **honest}
        difference = None
        if gap is not None and stopping.difference is not None:
            difference = {"value": stopping.difference.mean, "low": gap.low, "high": gap.high, "n": stopping.difference.n}
        return {"model": name, "reason": stopping.reason, "rows": stopping.accuracy.n, "difference": difference}

    def _played(self, model: str, order: NDArray[np.int64]) -> Stopping:
        """Play the verdicts of one model in the order of the draw, up to the first row that has not landed."""
        values = self._values[model]
        theirs = self._theirs.get(model)
        pairs = None if theirs is None else max(1, self._pairs[model])
        stopping = Stopping(self._rule, population=max(1, self._population), pairs=pairs)
        rest: tuple[list[float], list[float]] = ([], [])
        for position, place in enumerate(order.tolist()):
            if values[place] == _NOT_LANDED:
                break
            mine, other = _verdict(values[place]), None if theirs is None else _verdict(theirs[place])
            if stopping.reason is None:
                stopping.offer(position, mine, other)
            elif mine is not None:
                rest[0].append(mine)
                rest[1].extend([] if other is None else [mine - other])
        # What was in flight when the answer was known counts too: the interval holds at every moment.
        _add(stopping.accuracy, rest[0])
        if stopping.difference is not None:
            _add(stopping.difference, rest[1])
        return stopping


def _add(sequence: ConfidenceSequence, values: list[float]) -> None:
    if values:
        sequence.add(values)


def _verdict(value: float) -> float | None:
    return None if value < 0 else value


def _saved_usd(models: Sequence[Mapping[str, Any]], saved: int, planned: int) -> Decimal | None:
    """Return what the calls not made would have cost at each model's mean so far; None where that is not known."""
    if not saved or not planned:
        return Decimal(0)
    total = Decimal(0)
    for model in models:
        landed, cost = model["rows"]["landed"], model["cost"]["total_usd"]
        if not landed or cost is None:
            return None
        total += Decimal(str(cost)) / landed * (Decimal(planned) / len(models) - landed)
    return total.quantize(Decimal("1e-9"))
