"""`batchrun convert`: a dataset of another format as our own JSONL or Parquet, with every loss named and counted."""

from __future__ import annotations

import sys

import click

from batchrun.cli import colour
from batchrun.cli.options import print_json
from batchrun.visible import visible


@click.command("convert", epilog="Example: batchrun convert BFCL_v4_parallel.json --from bfcl -o parallel.jsonl")
@click.argument("source", metavar="SRC")
@click.option("--from", "kind", metavar="FORMAT", help="Format of SRC; told from its rows where that is unambiguous.")
@click.option("-o", "--out", required=True, metavar="OUT", help="A .jsonl[.gz|.zst] or .parquet file to write.")
@click.option("--answers", metavar="FILE", help="Expected answers in a file of their own, joined by id.")
@click.option("--rejects", metavar="FILE", help="Where rows go that cannot be converted [default: OUT.rejects.jsonl].")
@click.option("--column", "columns", multiple=True, metavar="OURS=THEIRS", help="Our field → their column or JSON path.")
@click.option(
    "--formats",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda ctx, param, value: _list(ctx, param, value=value),
    help="List them.",
)
@click.option("--json", "json_", is_flag=True, help="Print what became of it as JSON.")
def command(
    source: str, kind: str | None, out: str, answers: str | None, rejects: str | None, columns: tuple[str, ...], *, json_: bool
) -> None:
    """Convert SRC (a file, a folder, a glob, an address) to our own form.

    Rows that cannot be converted go to the rejects file, each with its reason.
    """
    from batchrun.cli.places import require_another
    from batchrun.cli.process import load_numpy
    from batchrun.errors import UsageError
    from batchrun.sources import open_dataset
    from batchrun.sources.convert import convert
    from batchrun.sources.format import LOSSES

    pairs = [column.partition("=") for column in columns]
    if wrong := [ours for ours, equals, theirs in pairs if not (ours and equals and theirs)]:
        raise UsageError(f"--column takes OURS=THEIRS, not {wrong[0]!r}", hint="--column messages=$.body.messages")
    for written in (out, rejects):
        if written is not None:
            require_another(written)
    if out.endswith(".parquet"):
        load_numpy()
    dataset = open_dataset(source, format=kind, columns={ours: theirs for ours, _, theirs in pairs})
    key = open_dataset(answers, format=kind) if answers else None
    report = convert(dataset, out, rejects=rejects, answers=key)
    if json_:
        print_json(report)
        return
    for name, number in sorted(report.losses.items()):
        click.echo(
            f"{click.style('warning', fg='yellow')}: {LOSSES.get(name, name)} ({name}), {number:,}×", color=colour(sys.stdout)
        )
    for reason, number in sorted(report.reasons.items()):
        click.echo(f"{click.style('rejected', fg='red')}: {visible(reason)}, {number:,}×", color=colour(sys.stdout))
    click.echo(
        f"{report.rows:,} rows of {report.format} → {report.out}" + (f"; {report.rejected:,} rejected" if report.rejected else "")
    )
    if report.rejects:
        click.echo(f"rejects: {report.rejects}", err=True)


def _list(ctx: click.Context, _parameter: click.Parameter, *, value: bool) -> None:
    """Print the formats and leave."""
    if not value or ctx.resilient_parsing:
        return
    from batchrun.sources.formats.registry import FORMATS

    width = max(map(len, FORMATS))
    for name, kind in FORMATS.items():
        click.echo(f"{name:<{width}}  {kind.title}")
    ctx.exit()
