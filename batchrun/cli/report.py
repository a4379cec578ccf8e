"""`batchrun report`: the report of one run, several side by side, or a comparison of two, as a page, Markdown, JSON or JUnit."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from batchrun.cli.options import print_json
from batchrun.errors import BatchrunError, UsageError
from batchrun.visible import visible

if TYPE_CHECKING:
    from batchrun.records import Row, Sample
    from batchrun.report.more_pages import Flip
    from batchrun.report.stored_page import Samples

FORMATS = ("html", "md", "json", "junit")
Summary = dict[str, Any]


@click.command("report", epilog="Example: batchrun report reports/suite/RUN_A reports/suite/RUN_B --format md")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option("--format", "form", type=click.Choice(FORMATS), default="html", show_default=True, help="Kind of report.")
@click.option("-o", "--output", "out", metavar="FILE", help="Where it goes; - is stdout.")
@click.option("--compare", "compared", is_flag=True, help="Two runs: what changed from the first to the second.")
@click.option(
    "--alpha",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    help="With --compare: chance of calling a difference that is none.",
)
@click.option("--any-dataset", is_flag=True, help="Compare runs over different datasets, by the ids both have.")
def command(runs: tuple[str, ...], form: str, out: str | None, alpha: float, *, compared: bool, any_dataset: bool) -> None:
    """Write the report of RUN; of several runs side by side, models as columns; with --compare, of what changed.

    A page of one run goes into its folder as report.html; everything else goes to stdout unless -o names a file.
    A RUN is a folder or an address in a bucket.
    """
    from batchrun.cli.places import name_of, require_another, run_folder
    from batchrun.report.comparison import read_summary

    if out is not None and out != "-":
        require_another(out, runs)
    folders = [run_folder(run) for run in runs]
    names = list(map(name_of, runs, folders))
    summaries = [read_summary(folder) for folder in folders]
    if compared:
        if len(summaries) != 2 or form == "junit":
            raise UsageError("--compare takes two runs, as html, md or json", hint="batchrun report RUN_A RUN_B --compare")
        text = _comparison(summaries, names, form, alpha, any_dataset=any_dataset)
    elif form == "junit":
        _write_junit(summaries, out)
        return
    else:
        text = _report(summaries, names, form)
    if form == "html" and out is None:
        out = f"{names[0]}/report.html" if len(runs) == 1 else None
    _write(text, out)


def _named(runs: list[Summary], names: list[str]) -> list[Summary]:
    """Return summaries to print: where the runs are and not where they were read."""
    return [{**run, "folder": name} for run, name in zip(runs, names, strict=True)]


def _report(runs: list[Summary], names: list[str], form: str) -> str | list[Summary]:
    """Return the report of one or several runs."""
    if form == "json":
        return _named(runs, names)
    if form == "md":
        from batchrun.report.markdown import render_markdown

        return render_markdown(runs, _failing(runs), links=[f"page: {name}/report.html" for name in names])
    if len(runs) > 1:
        from batchrun.report.more_pages import render_runs

        return render_runs(runs)
    from batchrun.report.stored_page import render_stored

    folder = Path(runs[0]["folder"])
    return render_stored(folder, runs[0], samples_of(folder))


def _comparison(runs: list[Summary], names: list[str], form: str, alpha: float, *, any_dataset: bool) -> Any:
    """Return what changed from the first run to the second."""
    from batchrun.report.comparison import compare_runs

    before, after = runs
    comparison = compare_runs(before, after, alpha=alpha, any_dataset=any_dataset)
    if form == "json":
        before, after = _named(runs, names)
        return {"before": before, "after": after, "comparison": comparison}
    if form == "md":
        from batchrun.report.markdown import render_comparison_markdown

        return render_comparison_markdown(comparison, before, after)
    from batchrun.report.more_pages import render_comparison

    overall = comparison.overall
    lost, gained = (overall.lost, overall.gained) if overall is not None else ((), ())
    flips = [_flips([row for _, row in ids], before, after) for ids in (lost, gained)]
    return render_comparison(comparison, before, after, lost=flips[0], gained=flips[1])


def _flips(ids: Sequence[str], before: Summary, after: Summary) -> list[Flip]:
    """Return the first of the rows whose verdict changed, as they were and as they are, the first changed try of each."""
    from batchrun.report.more_pages import MOST_FLIPS
    from batchrun.report.stored_page import with_questions
    from batchrun.report.stored_rows import StoredRows

    wanted = list(dict.fromkeys(ids))[:MOST_FLIPS]
    folders = Path(before["folder"]), Path(after["folder"])
    old, new = (StoredRows(folder / "results.parquet").named(wanted) for folder in folders)
    models = {row.model for row in old} & {row.model for row in new}
    several = bool(models)

    def key(row: Row) -> tuple[str, str, int]:
        return (row.id, row.model if several else "", row.repeat)

    earlier = {key(row): row for row in old}
    pairs: dict[tuple[str, str], tuple[Row, Row]] = {}
    for row in new:
        was = earlier.get(key(row))
        if was is not None and was.correct != row.correct:
            pairs.setdefault(key(row)[:2], (was, row))
    shown = with_questions([row for _, row in pairs.values()], samples_of(folders[1]))
    return [(now._replace(row=was), now) for (was, _), now in zip(pairs.values(), shown, strict=True)]


def _failing(runs: list[Summary]) -> list[Row]:
    """Return the first failing rows of each run."""
    from batchrun.report.markdown import WORST
    from batchrun.report.stored_rows import FAILING, Query, StoredRows

    each = max(1, WORST // len(runs))
    return [
        row
        for run in runs
        for row in StoredRows(Path(run["folder"]) / "results.parquet").page(Query(outcome=FAILING, sort="score"), 0, each)[0]
    ]


def samples_of(folder: Path) -> Samples | None:
    """Return what opens the dataset of the run in `folder`; None where it cannot be opened any more."""
    from batchrun.prepare import open_job_dataset
    from batchrun.storage.folder import RunFolder

    try:
        manifest = RunFolder.open(folder).read_manifest()
        dataset = open_job_dataset(manifest.resolved_job())
        if dataset.digest() != manifest.identity.dataset:
            raise UsageError(f"{dataset.location} has changed since the run")
    except (BatchrunError, OSError) as error:
        click.echo(visible(f"the prompts are left out: {error}"), err=True)
        return None

    def samples(start: int) -> Iterable[Sample]:
        try:
            yield from dataset.samples(start)
        except BatchrunError as error:
            click.echo(visible(f"some prompts are left out: {error}"), err=True)

    return samples


def _write_junit(runs: Sequence[Summary], out: str | None) -> None:
    """Write one document with a suite a run, from the runs' own results."""
    from batchrun.storage.places import open_output

    if out is None or out == "-":
        _stream_junit(runs, sys.stdout.buffer)
        return
    with open_output(out) as stream:
        _stream_junit(runs, stream)
    click.echo(f"report: {out}", err=True)


def _stream_junit(runs: Sequence[Summary], stream: IO[bytes]) -> None:
    """Write the suites as their rows are read."""
    from batchrun.report.junit import JUnitWriter
    from batchrun.report.stored_rows import StoredRows

    first, *others = (f"{run['job']} {run['run_id']}" for run in runs)
    junit = JUnitWriter(stream, first)
    for run, name in zip(runs, [None, *others], strict=True):
        if name is not None:
            junit.next_suite(name)
        for row in StoredRows(Path(run["folder"]) / "results.parquet").every():
            junit.add(row)
    junit.close()


def _write(text: Any, out: str | None) -> None:
    """Write a report to a file, or to stdout; what is no text is JSON."""
    if out is None or out == "-":
        if isinstance(text, str):
            click.echo(text.encode("utf-8", "replace"), nl=False)
        else:
            print_json(text)
        return
    import msgspec

    from batchrun.storage.atomic import without_surrogates
    from batchrun.storage.places import open_output

    with open_output(out) as stream:
        if isinstance(text, str):
            stream.write(without_surrogates(text).encode())
        else:
            stream.write(msgspec.json.format(msgspec.json.encode(text), indent=2) + b"\n")
    click.echo(f"report: {out}", err=True)
