"""Two runs' verdicts by row → whether the second is better, where, and what this sample could not have shown.

Rows are joined by (model, id, repeat); repeats are averaged within a row first. Where every row is independent and was
answered once, the decision is by exact McNemar and the difference has Newcombe's interval; else both are the clustered
paired t's (a cluster, or a row under several models, moves together), and where all clusters moved alike, the decision is by
the sign test, without an interval. Models and tags are corrected for multiplicity by
Holm, each family by itself. Rows without a verdict in either run (infra errors, unscored) are outside, and counted. This
module reads no files and decides no gate: `Comparison.worse` says whether a loss is significant.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import fsum
from typing import Literal, NamedTuple

from msgspec import Struct, structs

from batchrun.statistics.clustered import ClusteredMean, Estimate
from batchrun.statistics.paired import holm, mcnemar, minimal_detectable, newcombe, rows_needed, sign_test, t_test

Key = tuple[str, str, int]
"""(model, id, repeat); the model is "" where two runs of one model each are held against each other."""


class Answer(Struct, frozen=True, kw_only=True, gc=False):
    """What a comparison needs of one line of `results.parquet`. `correct` is None outside the denominator."""

    correct: bool | None
    cluster: str | None = None
    tags: tuple[str, ...] = ()
    cost_usd: float | None = None
    latency_ms: float | None = None


class Contrast(Struct, frozen=True, kw_only=True):
    """One set of rows before and after. `detectable` is for alpha and power 0.8.

    `lost` and `gained` are (model, id) of the rows that got worse and better. `holm_p` is set within a family.
    """

    name: str
    rows: int
    before: Estimate
    after: Estimate
    difference: Estimate
    lost: tuple[tuple[str, str], ...]
    gained: tuple[tuple[str, str], ...]
    method: str
    p_value: float
    mcnemar_p: float
    detectable: float | None
    rows_for_half: int | None
    holm_p: float | None = None


class Comparison(Struct, frozen=True, kw_only=True):
    """The whole answer. `overall` is None where no shared row has a verdict in both runs."""

    alpha: float
    shared: int
    only_before: int
    only_after: int
    no_verdict: int
    overall: Contrast | None
    models: tuple[Contrast, ...]
    tags: tuple[Contrast, ...]
    cost: Estimate | None
    latency_ms: Estimate | None

    def worse(self, alpha: float | None = None) -> bool | None:
        """Say whether the second run is significantly worse at `alpha`; None where they share no row with a verdict."""
        if self.overall is None:
            return None
        return self.overall.difference.value < 0 and self.overall.p_value <= (self.alpha if alpha is None else alpha)


class _Row(NamedTuple):
    """One (model, id), its repeats averaged."""

    model: str
    id: str
    before: float
    after: float
    repeats: int
    cluster: str | None
    tags: tuple[str, ...]


def compare(before: Mapping[Key, Answer], after: Mapping[Key, Answer], *, alpha: float = 0.05) -> Comparison:
    """Compare two runs over the rows they share; intervals have confidence 1 − `alpha`."""
    shared = [key for key in before if key in after]
    judged = [key for key in shared if before[key].correct is not None and after[key].correct is not None]
    rows = _rows(judged, before, after)
    models = sorted({row.model for row in rows})
    tags = sorted({tag for row in rows for tag in row.tags})
    return Comparison(
        alpha=alpha,
        shared=len(shared),
        only_before=len(before) - len(shared),
        only_after=len(after) - len(shared),
        no_verdict=len(shared) - len(judged),
        overall=_contrast("all", rows, alpha),
        models=_family(
            {model: [row for row in rows if row.model == model] for model in models} if len(models) > 1 else {}, alpha
        ),
        tags=_family(_by_tag(tags, rows), alpha),
        cost=_paired("cost_usd", shared, before, after, alpha),
        latency_ms=_paired("latency_ms", shared, before, after, alpha),
    )


def _rows(keys: Sequence[Key], before: Mapping[Key, Answer], after: Mapping[Key, Answer]) -> list[_Row]:
    """Average the repeats within each (model, id)."""
    rows = []
    for (model, row_id), cluster, repeats in _grouped(keys, before):
        n = len(repeats)
        share = [fsum(bool(run[key].correct) for key in repeats) / n for run in (before, after)]
        rows.append(_Row(model, row_id, share[0], share[1], n, cluster, before[repeats[0]].tags))
    return rows


def _grouped(keys: Sequence[Key], before: Mapping[Key, Answer]) -> Iterator[tuple[tuple[str, str], str | None, list[Key]]]:
    """Yield each (model, id), its cluster and its repeats; under several models an id is a cluster."""
    grouped: dict[tuple[str, str], list[Key]] = {}
    for key in keys:
        grouped.setdefault(key[:2], []).append(key)
    several = len({model for model, _ in grouped}) > 1
    for place, repeats in grouped.items():
        cluster = before[repeats[0]].cluster
        yield place, f"row {place[1]}" if cluster is None and several else cluster, repeats


def _by_tag(tags: Sequence[str], rows: Sequence[_Row]) -> dict[str, list[_Row]]:
    """Group rows by tag; a row with several is in several groups."""
    grouped: dict[str, list[_Row]] = {tag: [] for tag in tags}
    for row in rows:
        for tag in dict.fromkeys(row.tags):
            grouped[tag].append(row)
    return grouped


def _family(groups: Mapping[str, Sequence[_Row]], alpha: float) -> tuple[Contrast, ...]:
    """Contrast each group and correct their p-values together."""
    found = [contrast for name, rows in groups.items() if (contrast := _contrast(name, rows, alpha)) is not None]
    adjusted = holm({contrast.name: contrast.p_value for contrast in found})
    return tuple(structs.replace(contrast, holm_p=adjusted.get(contrast.name)) for contrast in found)


def _contrast(name: str, rows: Sequence[_Row], alpha: float) -> Contrast | None:
    """Hold one set of rows against itself; None of nothing."""
    means = ClusteredMean(), ClusteredMean(), ClusteredMean()
    for row in rows:
        for mean, value in zip(means, (row.before, row.after, row.after - row.before), strict=True):
            mean.add(value, row.cluster, repeats=row.repeats)
    before, after, difference = means[0].proportion(1 - alpha), means[1].proportion(1 - alpha), means[2].estimate(1 - alpha)
    if before is None or after is None or difference is None:
        return None
    lost = tuple((row.model, row.id) for row in rows if row.after < row.before)
    gained = tuple((row.model, row.id) for row in rows if row.after > row.before)
    exact = difference.clusters == len(rows) and all(row.repeats == 1 for row in rows)
    if exact:
        both = sum(row.before == row.after == 1 for row in rows)
        table = (both, len(lost), len(gained), len(rows) - both - len(lost) - len(gained))
        difference = structs.replace(difference, interval=newcombe(table, 1 - alpha))
    mcnemar_p = mcnemar(len(lost), len(gained))
    method, p_value = ("exact McNemar", mcnemar_p) if exact else ("paired t, clustered", t_test(difference))
    if p_value is None:
        method, p_value = "sign test, clustered", sign_test(difference)
        difference = structs.replace(difference, interval=None)
    detectable = minimal_detectable(difference.se, alpha=alpha)
    return Contrast(
        name=name,
        rows=len(rows),
        before=before,
        after=after,
        difference=difference,
        lost=lost,
        gained=gained,
        method=method,
        p_value=p_value,
        mcnemar_p=mcnemar_p,
        detectable=detectable,
        rows_for_half=None if detectable is None else rows_needed(len(rows), detectable, detectable / 2),
    )


def _paired(
    name: Literal["cost_usd", "latency_ms"],
    keys: Sequence[Key],
    before: Mapping[Key, Answer],
    after: Mapping[Key, Answer],
    alpha: float,
) -> Estimate | None:
    """Return the mean difference of a quantity over the rows where both runs have it, repeats averaged first."""
    differences: dict[Key, float] = {}
    for key in keys:
        old, new = getattr(before[key], name), getattr(after[key], name)
        if old is not None and new is not None:
            differences[key] = new - old
    mean = ClusteredMean()
    for _, cluster, repeats in _grouped([*differences], before):
        mean.add_row([differences[key] for key in repeats], cluster)
    return mean.estimate(1 - alpha)
