"""Judge tool calls: pure, total, explained.

`open_scorer` turns a job's `[scoring]` into a scorer; a scorer turns the JSON text of `expected`, that of `tools` and a
`Reply` into a `Score` and never raises for what they hold. `expected` is read by `compile` into `matchers`, `tools` by
`schema`, the reply by `answers`; `judge` is the `default` and `exact` profile, `bfcl` the leaderboard's. `lint` checks
the answers of a dataset before a run, `metrics` counts the scores of one after it. Importing this package loads none
of them: what is heavy in them (scipy, jsonschema-rs) waits for the first row that needs it.
"""

from __future__ import annotations

from typing import Protocol

from batchrun.job import Scoring
from batchrun.records import Reply, Score


class Scorer(Protocol):
    """What `open_scorer` returns."""

    def score(self, expected: bytes | str | None, tools: bytes | str | None, reply: Reply) -> Score:
        """Judge one answer against the JSON texts of its row's `expected` and `tools`."""
        ...


def open_scorer(spec: Scoring) -> Scorer:
    """Return the scorer that a job's `[scoring]` describes; raises `JobError` for a custom one that is not there."""
    if spec.scorer is not None:
        from batchrun.scoring.custom import load_custom  # noqa: PLC0415 - only what the job asks for is loaded

        return load_custom(spec.scorer, spec.scorer_options)
    if spec.profile == "bfcl":
        from batchrun.scoring.bfcl import BfclJudge  # noqa: PLC0415 - only what the job asks for is loaded

        return BfclJudge()
    from batchrun.scoring.judge import Judge  # noqa: PLC0415 - only what the job asks for is loaded

    return Judge(exact=spec.profile == "exact", strict=spec.order == "strict", extra_allowed=spec.extra_calls == "allowed")
