"""`batchrun score`: verdicts without a call, on a finished run or on a file of answers made elsewhere."""

from __future__ import annotations

from pathlib import Path

import click

from batchrun.cli.options import print_json
from batchrun.errors import UsageError

PROFILES = ("default", "exact", "bfcl")


@click.command("score", epilog="Example: batchrun score answers.parquet --profile bfcl --out verdicts.parquet")
@click.argument("source", metavar="RUN|FILE")
@click.option("--profile", type=click.Choice(PROFILES), help="How strict [default: the run's, or `default`].")
@click.option("--scorer", metavar="PKG.MODULE:CLASS", help="A scorer of your own.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="FILE: where the verdicts go [default: FILE with .scored in its name]."
)
@click.option("--column", "columns", multiple=True, metavar="OURS=THEIRS", help="FILE: what a column is called there.")
@click.option("--set", "set_", multiple=True, metavar="KEY=VALUE", help="Any key of the job, by its path.")
@click.option("--json", "json_", is_flag=True, help="Print the summary as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing.")
def command(
    source: str,
    profile: str | None,
    scorer: str | None,
    out: Path | None,
    columns: tuple[str, ...],
    set_: tuple[str, ...],
    *,
    json_: bool,
    quiet: bool,
) -> None:
    """Score RUN again in place (another profile, a scorer of your own) and judge its gates anew, or score FILE.

    FILE is Parquet or JSONL with `expected`, `tools` and `tool_calls`, a list of {name, input},
    {name, arguments} or {function: {name, arguments}}; the arguments are an object or its JSON text.
    """
    overrides: list[tuple[str, object]] = []
    if profile is not None:
        overrides.append(("scoring.profile", profile))
    if scorer is not None:
        overrides.append(("scoring.scorer", scorer))
    overrides += _sets(set_)
    if "://" in source or Path(source).is_dir():
        if out is not None or columns:
            raise UsageError("--out and --column are for a FILE of answers; a RUN is scored in place")
        _run(source, overrides, json_=json_, quiet=quiet)
    else:
        _file(Path(source), out, columns, overrides, json_=json_, quiet=quiet)


def _sets(assignments: tuple[str, ...]) -> list[tuple[str, object]]:
    from batchrun.job import parse_set

    return [parse_set(assignment) for assignment in assignments]


def _run(folder: str, overrides: list[tuple[str, object]], *, json_: bool, quiet: bool) -> None:
    """Score a finished run again."""
    from batchrun.cli.process import load_numpy
    from batchrun.cli.table import show_summary

    load_numpy(custom=True)  # the run may have a scorer of its user's
    from batchrun.schedule.supervise import score_again

    summary, failed = score_again(folder, overrides)
    if json_:
        print_json(summary)
    elif not quiet:
        show_summary(summary)
    if failed is not None:
        raise failed


def _file(
    source: Path,
    out: Path | None,
    columns: tuple[str, ...],
    overrides: list[tuple[str, object]],
    *,
    json_: bool,
    quiet: bool,
) -> None:
    """Score a file of answers."""
    from batchrun.answers import score_file
    from batchrun.job import parse_job
    from batchrun.report.words import interval

    if not source.exists():
        raise UsageError(f"{source}: there is no such run or file")
    pairs = [column.partition("=") for column in columns]
    if wrong := [ours for ours, equals, theirs in pairs if not (ours and equals and theirs)]:
        raise UsageError(f"--column takes OURS=THEIRS, not {wrong[0]!r}", hint="--column tool_calls=candidate_calls")
    scoring = parse_job("", default_name="score", default_dataset="none", overrides=overrides).scoring
    target = out or source.with_name(f"{source.stem}.scored{source.suffix}")
    marked = score_file(source, target, scoring, {ours: theirs for ours, _, theirs in pairs})
    if json_:
        print_json({"out": str(marked.out), "rows": marked.rows, "accuracy": marked.accuracy, "metrics": marked.metrics})
    elif not quiet:
        click.echo(f"{marked.rows:,} rows, accuracy {interval(marked.accuracy)} over {marked.accuracy['n']:,} scored")
        for outcome, number in marked.metrics["outcomes"].items():
            click.echo(f"  {outcome:<17} {number:,}")
        click.echo(f"verdicts: {marked.out}", err=True)
