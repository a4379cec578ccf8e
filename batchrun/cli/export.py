"""`batchrun export`: a run's results as JSONL or CSV, or as a dataset card to publish them with."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import BinaryIO

import click

from batchrun.errors import UsageError

FORMATS = ("jsonl", "csv", "card")


@click.command("export", epilog="Example: batchrun export reports/weather/20260101T060000Z-1a2b3c -o answers.jsonl")
@click.argument("run", metavar="RUN")
@click.option("-o", "--out", metavar="FILE", help="File to write [default: stdout].")
@click.option("--format", "kind", type=click.Choice(FORMATS), help="By the ending of --out, else jsonl.")
@click.option("--columns", metavar="A,B,…", help="Only these columns.")
def command(run: str, out: str | None, kind: str | None, columns: str | None) -> None:
    """Write the results of RUN as JSONL or CSV (to stdout, or to --out whole or not at all), or a dataset card.

    RUN and --out may be addresses in a bucket.
    """
    from batchrun.cli.places import require_another, run_folder
    from batchrun.storage.places import open_output

    chosen = [name.strip() for name in columns.split(",")] if columns else None
    kind = kind or _by_ending(out)
    folder = run_folder(run)
    if out is None:
        _write(folder, kind, chosen, sys.stdout.buffer)
        return
    require_another(out, [run])
    with open_output(out) as stream:
        _write(folder, kind, chosen, stream)


def _by_ending(out: str | None) -> str:
    """Return the format that a file's name asks for."""
    if out is None:
        return "jsonl"
    endings = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".md": "card"}
    ending = Path(out).suffix
    if ending not in endings:
        raise UsageError(f"{out}: its ending says no format", hint="--format jsonl|csv|card")
    return endings[ending]


def _write(run: Path, kind: str, columns: list[str] | None, stream: BinaryIO) -> None:
    """Write the results in one format."""
    from batchrun.cli.process import load_numpy

    load_numpy()
    from batchrun.storage import card, export
    from batchrun.storage.folder import RunFolder

    folder = RunFolder.open(run)
    if kind == "card":
        text = card.dataset_card(folder.results, folder.read_manifest())
        stream.write(text.encode())
        return
    write = export.export_jsonl if kind == "jsonl" else export.export_csv
    write(folder.results, stream, columns)
