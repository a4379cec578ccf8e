"""A job and what is to be asked for it → its estimate, every source named.

Input tokens come from the endpoint's own count of sampled rows, else from earlier runs of the model, else from a rule of
thumb; output tokens from earlier runs of the job or its dataset, else from `max_tokens`; latency from the same runs, or a
rule of thumb. A pilot replaces them all by what its calls came to. The estimate is kept, so that the run that follows can
be laid beside it.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct

from batchrun.errors import BatchrunError
from batchrun.estimation.counting import CountStore, count_tokens
from batchrun.estimation.history import Learnt, learn
from batchrun.estimation.pilot import CONFIDENCE, Chosen, Pilot, Terms, as_range, measure
from batchrun.estimation.survey import CACHE_MINIMUM, Draw, ModelSurvey, Survey, draw, drawn, survey
from batchrun.job import Job
from batchrun.prepare import Options, book_of, endpoint, open_job_dataset
from batchrun.pricing.book import PriceBook
from batchrun.pricing.estimate import (
    THUMB_TOOLS,
    OutputTokens,
    Range,
    RunEstimate,
    TokenRatio,
    Workload,
    bounded_output,
    estimate,
    hours_under,
    learnt_output,
)
from batchrun.pricing.pilot import Seen, pilot_total
from batchrun.run import run
from batchrun.sources import Dataset
from batchrun.storage.estimates import CACHE, keep_estimate
from batchrun.storage.folder import RunFolder
from batchrun.storage.manifest import Identity

if TYPE_CHECKING:
    from batchrun.collect import Show

COUNTED_ROWS: Final = 32  # of each model
LEAST_COUNTED: Final = 8
LATENCY_SPREAD: Final = (0.7, 1.0, 1.6)
THUMB_FIRST_S: Final = Range(0.5, 1.0, 3.0)
THUMB_TOKEN_S: Final = Range(0.008, 0.017, 0.05)


class Asked(Struct, frozen=True, kw_only=True):
    """What an estimate may use: rows to count (0: none), calls to make, and where earlier runs and counts are."""

    options: Options
    count: int = COUNTED_ROWS
    pilot: int = 0
    environ: Mapping[str, str] = os.environ


class ModelEstimate(Struct, frozen=True, kw_only=True):
    """One model's share, and where its figures come from."""

    model: str
    estimate: RunEstimate
    input_source: str
    output_source: str


class JobEstimate(Struct, frozen=True, kw_only=True):
    """What a job will cost. `calls` = `rows` × models × `repeats`; `pilot`'s money, where it knows it, is in `total` too."""

    job: str
    made_at: str
    simulated: bool
    mode: str
    rows: int
    bad_rows: int
    repeats: int
    calls: int
    total: RunEstimate
    models: tuple[ModelEstimate, ...]
    latency_s: Range
    latency_source: str
    notes: tuple[str, ...]
    pilot: Pilot | None = None


class Known(Struct, frozen=True, kw_only=True):
    """What is known of one model's calls before they are made."""

    survey: ModelSurvey
    ratio: TokenRatio
    learnt: Learnt
    input_source: str


def estimate_job(job: Job, asked: Asked, *, show: Show | None = None) -> JobEstimate:
    """Estimate `job`, with a pilot of `asked.pilot` calls if there are any; nothing else is paid for.

    Raises what a run of the job would raise before its first call, and what stopped the pilot.
    """
    dataset, book, options = open_job_dataset(job), book_of(job), asked.options
    surveyed = survey(job, dataset.samples())
    learnt = learn(options.root, job, dataset, simulated=options.simulate)
    notes = [f"{surveyed.bad_rows:,} rows cannot be sent and are not in it"] if surveyed.bad_rows else []
    ratios = _counted(job, dataset, surveyed, asked, notes) if asked.count else {}
    known = [_known(one, ratios.get(one.model), learnt[one.model]) for one in surveyed.models]
    made = _forecast(job, surveyed, known, book, options, tuple(notes))
    if asked.pilot:
        made = _with_pilot(job, dataset, known, made, asked, show)
    identity = Identity.of(job, dataset.digest(), simulated=options.simulate)
    keep_estimate(options.root, identity, stored(made))
    if made.pilot is not None:
        _note(Path(made.pilot.folder), stored(made))
    return made


def stored(made: JobEstimate) -> dict[str, Any]:
    """Return the part of an estimate that its run is laid beside, as plain values; `confidence` None: a bracket."""
    total = made.total
    mode = total.batches if made.mode == "batches" else total.messages
    with_interval = made.pilot is not None and made.pilot.cost is not None
    return {
        "made_at": made.made_at,
        "calls": made.calls,
        "currency": total.currency,
        "cost": None if mode.cost is None else mode.cost._asdict(),
        "hours": mode.hours._asdict(),
        "input_tokens": total.input_tokens._asdict(),
        "output_tokens": total.output_tokens._asdict(),
        "confidence": CONFIDENCE if with_interval else None,
        "sources": list(total.sources),
    }


def _counted(job: Job, dataset: Dataset, surveyed: Survey, asked: Asked, notes: list[str]) -> dict[str, TokenRatio]:
    """Return the bytes a token of each model whose rows the endpoint counted; say in `notes` why it did not."""
    draws = {one.model: draw(one, asked.count, seed=job.scoring.seed) for one in surveyed.models if one.rows}
    calls = list(drawn(job, dataset.samples(), draws))
    if not calls:
        return {}
    store = CountStore(asked.options.root / CACHE / "token_counts.jsonl")
    bodies = [call.request.body for call in calls]
    with ExitStack() as stack:
        called = job
        if asked.options.simulate:
            called = stack.enter_context(endpoint(job, dataset, asked.options))
        counted = count_tokens(called, bodies, store, asked.environ, simulated=asked.options.simulate)
    ratios = {}
    for one in surveyed.models:
        seen = {place: count for place, count in counted.tokens.items() if calls[place].model == one.model}
        if len(seen) >= min(LEAST_COUNTED, one.rows) > 0:
            values: dict[Any, list[Seen]] = {}
            for place, tokens in seen.items():
                values.setdefault(calls[place].stratum, []).append(Seen(len(bodies[place]), tokens))
            ratios[one.model] = _ratio(one, draws[one.model], values, job.scoring.seed)
    if counted.missing:
        notes.append(f"count_tokens was not used for all: {counted.missing}" if ratios else f"no count_tokens: {counted.missing}")
    return ratios


def _ratio(one: ModelSurvey, drawn_: Draw, seen: Mapping[Any, list[Seen]], seed: int) -> TokenRatio:
    """Return bytes a token from counted rows: the whole's total, with its 95 % interval as the spread."""
    counts = sum(len(calls) for calls in seen.values())
    source = f"count_tokens of {counts:,} of {one.rows:,} rows"
    total = pilot_total(drawn_.lengths, seen, seed=seed, confidence=0.95)
    if total is None or total.low is None or total.high is None:  # not all strata were counted
        tokens = sum(call.value for calls in seen.values() for call in calls)
        return TokenRatio(
            per_token=sum(call.length for calls in seen.values() for call in calls) / tokens, rows=counts, source=source
        )
    spread = max(total.high / total.expected, total.expected / total.low)
    return TokenRatio(per_token=one.bytes / total.expected, spread=spread, rows=counts, source=source)


def _known(one: ModelSurvey, ratio: TokenRatio | None, learnt: Learnt) -> Known:
    """Return the best that is known of a model's input."""
    best = ratio or learnt.ratio
    if best is not None:
        return Known(survey=one, ratio=best, learnt=learnt, input_source=best.source)
    best = TokenRatio(per_call=THUMB_TOOLS * one.tool_rows / max(1, one.rows))
    source = f"{best.source}, {best.per_token} bytes a token" + (f" and {THUMB_TOOLS} tokens with tools" if one.tool_rows else "")
    return Known(survey=one, ratio=best, learnt=learnt, input_source=source)


def _forecast(
    job: Job, surveyed: Survey, known: list[Known], book: PriceBook, options: Options, notes: tuple[str, ...]
) -> JobEstimate:
    """Put everything together."""
    at_us = time.time_ns() // 1000
    loads = {one.survey.model: _workloads(job, one) for one in known}
    latency_s, latency_source = _latency(job, known, simulated=options.simulate)
    every = [load for each in loads.values() for load in each]
    models = tuple(
        ModelEstimate(
            model=one.survey.model,
            estimate=estimate(loads[one.survey.model], book, job.limits, at_us=at_us, latency_s=latency_s),
            input_source=one.input_source,
            output_source=loads[one.survey.model][0].sources[1].partition(": ")[2] if loads[one.survey.model] else "nothing",
        )
        for one in known
    )
    total = estimate(every, book, job.limits, at_us=at_us, latency_s=latency_s)
    if job.request.cache == "auto":
        notes = (*notes, "the prompt cache is counted on at the low and expected ends, not at the high end")
    elif any(one.survey.marked_rows for one in known):
        notes = (*notes, "rows have cache marks of their own: nothing is counted on being read from the cache")
    return JobEstimate(
        job=job.name,
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        simulated=options.simulate,
        mode=job.request.mode,
        rows=max((one.survey.rows for one in known), default=0),
        bad_rows=surveyed.bad_rows,
        repeats=surveyed.repeats,
        calls=surveyed.calls,
        total=msgspec.structs.replace(total, sources=(*total.sources, f"latency: {latency_source}")),
        models=models,
        latency_s=latency_s,
        latency_source=latency_source,
        notes=notes,
    )


def _workloads(job: Job, one: Known) -> list[Workload]:
    """Return one model's calls, those of about the same length together."""
    repeats, learnt = job.request.repeat, one.learnt
    read, written = cache_tokens(job, one.survey, one.ratio)
    calls = one.survey.rows * repeats
    share = float(learnt.wasted / learnt.cost) if learnt.cost else 0.0
    loads = []
    for _, bucket in sorted(one.survey.buckets.items()):
        max_tokens = round(bucket.max_tokens / bucket.rows)
        output = learnt_output(learnt.output, calls, max_tokens) if learnt.output else bounded_output(max_tokens)
        loads.append(
            Workload(
                model=one.survey.model,
                calls=bucket.rows * repeats,
                input_tokens=one.ratio.tokens(bucket.bytes / bucket.rows),
                output_tokens=output.per_call,
                cache_read_tokens=read / calls,
                cache_write_tokens=written / calls,
                cache_ttl=job.request.cache_ttl,
                waste=Range(share / 2, share, share * 2),
                sources=(f"input: {one.input_source}", f"output: {_known_from(output, learnt)}"),
            )
        )
    return loads


def _known_from(output: OutputTokens, learnt: Learnt) -> str:
    """Return where the output tokens are known from."""
    if output.source != "earlier runs":
        return "1 to max_tokens"
    return f"{len(learnt.runs)} earlier run" + ("s" if len(learnt.runs) > 1 else "")


def cache_tokens(job: Job, one: ModelSurvey, ratio: TokenRatio) -> tuple[float, float]:
    """Return the tokens that all calls of a model read from and write to the cache: its first call writes each prefix."""
    read = written = 0.0
    if job.request.cache == "auto":
        for length, rows in one.prefixes.values():
            tokens = length / ratio.per_token
            if tokens >= CACHE_MINIMUM:
                written += tokens
                read += tokens * (rows * job.request.repeat - 1)
    return read, written


def _latency(job: Job, known: list[Known], *, simulated: bool) -> tuple[Range, str]:
    """Return the mean seconds of a call, and where that is known from."""
    times = [ms for one in known for ms in one.learnt.latency_ms]
    if times:
        mean = math.fsum(times) / len(times) / 1000
        return Range(*(mean * factor for factor in LATENCY_SPREAD)), "earlier runs"
    tokens = bounded_output(job.request.max_tokens).per_call
    if simulated:
        first, each = job.simulate.first_byte_ms / 1000, job.simulate.token_ms / 1000
        return Range(*(first + each * count for count in tokens)), "the simulated endpoint's settings"
    ends = zip(THUMB_FIRST_S, THUMB_TOKEN_S, tokens, strict=True)
    return Range(*(first + each * count for first, each, count in ends)), "rule of thumb, 1 s and 17 ms an output token"


def _with_pilot(
    job: Job,
    dataset: Dataset,
    known: list[Known],
    made: JobEstimate,
    asked: Asked,
    show: Show | None,
) -> JobEstimate:
    """Make the pilot's calls into a run folder, and return the estimate that they lead to."""
    models = [one.survey for one in known if one.survey.rows]
    each = max(2, asked.pilot // max(1, len(models)))
    draws = {one.model: draw(one, each, seed=job.scoring.seed, repeats=made.repeats) for one in models}
    chosen = [
        Chosen(call.request.ordinal, call.model, call.stratum, len(call.request.body), call.weight)
        for call in drawn(job, dataset.samples(), draws)
    ]
    only = frozenset(call.ordinal for call in chosen)
    result = run(job, msgspec.structs.replace(asked.options, only=only), environ=asked.environ, show=show)
    if result.stopped is not None:
        raise _to_go_on(result.stopped, result.folder, made.calls)
    terms = Terms(book_of(job), _write_shares(job, known), job.request.cache_ttl, made.mode == "batches")
    with RunFolder(result.folder).open_index(seal=False) as index:
        pilot = measure(index, chosen, draws, terms, seed=job.scoring.seed)
    return _replaced(job, made, pilot)


def _to_go_on(stopped: BatchrunError, folder: Path, calls: int) -> BatchrunError:
    """Return why the pilot was stopped, with the folder of what it has, and what going on with that means."""
    said = f"{stopped.hint}; " if stopped.hint else ""
    hint = f"{said}`batchrun resume RUN` makes all {calls:,} calls of the run and not the pilot's alone"
    stopped.hint = hint.replace("RUN", str(folder))
    return stopped


def _write_shares(job: Job, known: list[Known]) -> dict[str, float]:
    """Return the share of cached tokens that are written, of each model whose cache marks are ours."""
    shares = {}
    for one in known:
        read, written = cache_tokens(job, one.survey, one.ratio)
        if written:
            shares[one.survey.model] = written / (read + written)
    return shares


def _replaced(job: Job, made: JobEstimate, pilot: Pilot) -> JobEstimate:
    """Return the estimate with what the pilot knows in place of what was assumed."""
    total, latency = made.total, made.latency_s
    if pilot.latency_s is not None:
        latency = Range(*(pilot.latency_s * factor for factor in LATENCY_SPREAD))
    input_tokens = as_range(pilot.input_tokens, total.input_tokens) or total.input_tokens
    output_tokens = as_range(pilot.output_tokens, total.output_tokens) or total.output_tokens
    hours, bottleneck = hours_under(job.limits, made.calls, input_tokens, output_tokens, latency)
    messages = msgspec.structs.replace(
        total.messages,
        cost=as_range(pilot.cost, total.messages.cost),
        hours=hours,
        bottleneck=bottleneck,
    )
    batches = msgspec.structs.replace(total.batches, cost=as_range(pilot.batch_cost, total.batches.cost))
    source = f"a pilot of {pilot.calls:,} of {made.calls:,} calls"
    return msgspec.structs.replace(
        made,
        total=msgspec.structs.replace(
            total,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            messages=messages,
            batches=batches,
            sources=(source,),
        ),
        latency_s=latency,
        latency_source=made.latency_source if pilot.latency_s is None else source,
        pilot=pilot,
    )


def _note(path: Path, estimate_: dict[str, Any]) -> None:
    """Write the estimate into the run's manifest."""
    folder = RunFolder(path)
    with folder.lock():
        manifest = folder.read_manifest()
        folder.write_manifest(msgspec.structs.replace(manifest, notes={**manifest.notes, "estimate": estimate_}))
