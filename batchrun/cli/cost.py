"""`batchrun cost`: what finished runs cost, and what they would have cost at other prices."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import click

from batchrun.cli.options import print_json
from batchrun.errors import UsageError
from batchrun.report.words import count, money, untold_waste
from batchrun.visible import visible

if TYPE_CHECKING:
    from batchrun.pricing.book import PriceBook
    from batchrun.pricing.lines import CostLine, CostSummary
    from batchrun.repricing import PastRun, Repriced

MOST_LINES = 30
_HEADLINES = (
    ("total", "total"),
    ("  answers", "answers"),
    ("  thrown away", "wasted"),
    ("per row", "per_row"),
    ("per correct answer", "per_correct"),
    ("per 1,000 calls", "per_1000_calls"),
    ("without caching", "without_cache"),
    ("saved by caching", "cache_saved"),
    ("through batches", "as_batch"),
)


@click.command(
    "cost", epilog="Example: batchrun cost reports/weather/* --model claude-3-5-haiku-20241022 --batch --format csv -o cost.csv"
)
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option("--prices", metavar="FILE", help="Price book (TOML or JSON with the fields of [prices]).")
@click.option("--set", "set_", multiple=True, metavar="prices.KEY=VALUE", help="Any key of the job's [prices].")
@click.option("--date", metavar="DAY", help="Prices as of this ISO date, for every call.")
@click.option("--model", metavar="MODEL", help="As if every call had gone to this model.")
@click.option("--no-cache", is_flag=True, help="As if nothing had been read from or written to the prompt cache.")
@click.option("--batch/--no-batch", default=None, help="As if through the Batches endpoint, or not.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["table", "json", "csv", "parquet"]),
    default="table",
    show_default=True,
    help="How the costs are written.",
)
@click.option("-o", "--output", metavar="FILE", help="Write there [default: stdout].")
def command(
    runs: tuple[str, ...],
    *,
    prices: str | None,
    set_: tuple[str, ...],
    date: str | None,
    model: str | None,
    format_: Literal["table", "json", "csv", "parquet"],
    output: str | None,
    no_cache: bool,
    batch: bool | None,
) -> None:
    """Show what finished RUNs cost and, with other prices or a what-if, what they would have cost.

    Nothing is called and no run is changed. Several runs are also added up. A RUN is a folder or an address in a bucket.
    """
    from msgspec.structs import replace

    from batchrun.cli.places import name_of, require_another, run_folder
    from batchrun.pricing.reprice import WhatIf
    from batchrun.repricing import open_run, reprice, together

    if output is not None:
        require_another(output, runs)
    overrides = _overrides(prices, set_, date)
    what_if = WhatIf(model=model, caching=not no_cache, batch=batch)
    changed = bool(overrides) or what_if != WhatIf()
    folders = [run_folder(run, journal=True) for run in runs]
    past = [open_run(folder) for folder in folders]
    parts = [reprice(run, what_if, _book(run, overrides) if overrides or model else None) for run in past]
    parts = [replace(part, run=name_of(run, Path(part.run))) for run, part in zip(runs, parts, strict=True)]
    whole = together(parts) if len(parts) > 1 else parts[0]
    _write(parts, whole, format_, output, changed=changed)


def _overrides(prices: str | None, set_: tuple[str, ...], date: str | None) -> list[tuple[str, object]]:
    """Return what is changed of the job's prices as (key path, value) pairs."""
    from batchrun.job import parse_set

    named = {"prices.file": prices, "prices.date": date}
    overrides: list[tuple[str, object]] = [(path, value) for path, value in named.items() if value is not None]
    overrides += [parse_set(assignment) for assignment in set_]
    if wrong := [path for path, _ in overrides if not path.startswith("prices.")]:
        raise UsageError(f"--set {wrong[0]} changes no price", hint="--set prices.multiplier=0.8")
    return overrides


def _book(run: PastRun, overrides: Sequence[tuple[str, object]]) -> PriceBook:
    """Return the book of a run's job under the overrides."""
    from batchrun.job import with_overrides
    from batchrun.prepare import book_of

    return book_of(with_overrides(run.job, overrides))


def _write(parts: Sequence[Repriced], whole: Repriced, format_: str, output: str | None, *, changed: bool) -> None:
    """Write in the format that is asked for, to the file or to stdout."""
    if format_ in {"csv", "parquet"}:
        _write_lines(whole, format_, output, changed=changed)
        return
    if format_ == "json":
        value = _as_json(parts, whole, changed=changed)
        if output is None:
            print_json(value)
            return
        import msgspec

        text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n"
    else:
        text = "\n".join(map(visible, _table(parts, whole, changed=changed))) + "\n"
    if output is None:
        click.echo(text, nl=False)
        return
    from batchrun.storage.atomic import without_surrogates
    from batchrun.storage.places import open_output

    with open_output(output) as stream:
        stream.write(without_surrogates(text).encode())


def _as_json(parts: Sequence[Repriced], whole: Repriced, *, changed: bool) -> dict[str, Any]:
    """Return everything as one value."""
    sides = ("billed", "repriced") if changed else ("billed",)
    return {
        "runs": [{"run": part.run, **{side: getattr(part, side) for side in sides}} for part in parts],
        **{side: getattr(whole, side) for side in sides},
        **{f"{side}_lines": getattr(whole, f"{side}_lines") for side in sides},
        "carried_over": whole.carried_over,
    }


def _write_lines(whole: Repriced, format_: str, output: str | None, *, changed: bool) -> None:
    """Write the lines of `cost.parquet`, with a first column that says which side each is of."""
    import pyarrow as pa
    import pyarrow.csv as pa_csv
    import pyarrow.parquet as pq

    from batchrun.storage.arrays import strings
    from batchrun.storage.places import open_output
    from batchrun.storage.tables import cost_table

    tables = []
    for side in ("billed", "repriced") if changed else ("billed",):
        lines = cost_table(getattr(whole, f"{side}_lines"))
        tables.append(lines.add_column(0, "prices", strings([side] * lines.num_rows)))
    table = pa.concat_tables(tables)
    if output is None:
        if format_ == "parquet":
            raise UsageError("Parquet goes into a file", hint="-o cost.parquet")
        pa_csv.write_csv(table, sys.stdout.buffer)
        return
    with open_output(output) as stream:
        if format_ == "parquet":
            pq.write_table(table, stream, compression="zstd")
        else:
            pa_csv.write_csv(table, stream)


def _table(parts: Sequence[Repriced], whole: Repriced, *, changed: bool) -> list[str]:
    """Return what a person reads: the figures, then the total by run, kind, model and tag, then what is not known."""
    sides = [whole.billed, whole.repriced] if changed else [whole.billed]
    rows: list[tuple[str, ...]] = [("", "billed", "repriced", "change") if changed else ("", "billed")]
    rows += [_row(title, [_figure(summary, getattr(summary, field)) for summary in sides]) for title, field in _HEADLINES]
    if len(parts) > 1:
        rows.append(("by run",))
        rows += [
            _row(f"  {part.run}", [_figure(s, s.total) for s in (part.billed, part.repriced)[: len(sides)]]) for part in parts
        ]
    rows += _kinds(sides)
    both = [whole.billed_lines, whole.repriced_lines][: len(sides)]
    rows += _by("model", "total", both) + _by("tag", "tag", both)
    head = f"{whole.billed.rows:,} rows, {whole.billed.correct:,} correct, {whole.billed.attempts:,} calls"
    return [head, "", *_aligned(rows), *_notes(whole, changed=changed)]


class _Figure(NamedTuple):
    """An amount, and over how many rows without a price it is silent."""

    amount: Decimal | None
    currency: str
    unpriced: int


def _figure(summary: CostSummary, amount: Decimal | None) -> _Figure:
    return _Figure(amount, summary.currency, sum(summary.unpriced.values()))


def _row(title: str, figures: Sequence[_Figure]) -> tuple[str, ...]:
    """Return one line: the amounts, and how much the second is more than the first where both are of the same rows."""
    cells = [money(figure.amount, figure.currency) for figure in figures]
    if len(figures) < 2:
        return (title, *cells)
    (old, *same), (new, *same_new) = figures
    return (title, *cells, f"{(new - old) / old:+.1%}" if old and new is not None and same == same_new else "")


def _kinds(summaries: Sequence[CostSummary]) -> list[tuple[str, ...]]:
    """Return a line a token kind, with its tokens."""
    rows: list[tuple[str, ...]] = [("by kind",)]
    for kind in dict.fromkeys(kind for summary in summaries for kind in summary.by_kind):
        parts = [summary.by_kind.get(kind) for summary in summaries]
        tokens = next((part.tokens for part in parts if part is not None), None)
        title = f"  {kind}" + (f" ({count(tokens)} tokens)" if tokens is not None else "")
        none = [None if summary.answers is None else Decimal(0) for summary in summaries]
        amounts = [part.cost if part is not None else nothing for part, nothing in zip(parts, none, strict=True)]
        rows.append(_row(title, [_figure(summary, amount) for summary, amount in zip(summaries, amounts, strict=True)]))
    return rows


def _by(title: str, dimension: str, sides: Sequence[Sequence[CostLine]]) -> list[tuple[str, ...]]:
    """Return a line for each model or tag, the dearest first; nothing where there is only one."""
    totals = [_totals(dimension, lines) for lines in sides]
    names = dict.fromkeys(sorted((name for side in totals for name in side), key=lambda name: -_first(totals, name)))
    if len(names) < 2:
        return []
    missing = _Figure(None, "USD", 0)
    rows = [_row(f"  {name}", [side.get(name, missing) for side in totals]) for name in list(names)[:MOST_LINES]]
    more = [(f"  … and {len(names) - MOST_LINES:,} more",)] if len(names) > MOST_LINES else []
    return [(f"by {title}",), *rows, *more]


def _totals(dimension: str, lines: Sequence[CostLine]) -> dict[str, _Figure]:
    """Return what each model (of dimension `total`) or value came to over its kinds."""
    totals: dict[str, _Figure] = {}
    seen: dict[tuple[str, str], int] = {}
    for line in lines:
        if line.dimension == dimension:
            name = line.model if dimension == "total" else line.value
            old = totals.get(name, _Figure(None, line.currency, 0))
            amount = old.amount if line.cost is None else (old.amount or Decimal(0)) + line.cost
            seen[name, line.model] = line.unpriced_rows  # the same on each of its lines
            totals[name] = _Figure(amount, line.currency, sum(n for (of, _), n in seen.items() if of == name))
    return totals


def _first(sides: Sequence[dict[str, _Figure]], name: str) -> Decimal:
    """Return what a name came to on the first side that knows."""
    return next((side[name].amount or Decimal(0) for side in sides if name in side), Decimal(0))


def _aligned(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Align the first column to the left and the others to the right."""
    widths = [max(len(row[place]) for row in rows if place < len(row)) for place in range(max(map(len, rows)))]
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=False)]
        yield "   ".join([row[0].ljust(widths[0]), *cells]).rstrip()


def _notes(whole: Repriced, *, changed: bool) -> Iterator[str]:
    """Yield what the figures leave out."""
    shown = whole.repriced if changed else whole.billed
    for model, rows in shown.unpriced.items():
        yield f"no price is known for {model}: {rows:,} answers are in no sum"
    if shown.waste_unknown:
        yield untold_waste(shown.waste_unknown)
    if changed and whole.carried_over:
        yield f"{whole.carried_over:,} rows: what the columns do not hold was carried over as it was billed (no journal)"
