"""`batchrun cost` as a user types it: finished runs at other prices."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from batchrun.cli import main
from tests.cli.endpoint import SAYS, command, endpoint, environment, reply
from tests.transport.servers import Asked, Peer

SONNET, HAIKU = "claude-sonnet-4-20250514", "claude-3-5-haiku-20241022"
TOOL = {"name": "look_up", "input_schema": {"type": "object", "properties": {"q": {"type": "string"}}}}
QUICK = (
    "--simulate",
    "-q",
    "--set",
    "simulate.first_byte_ms=0",
    "--set",
    "simulate.token_ms=0",
    "--set",
    "simulate.faults.cut=0.2",
)


def call(*args: str) -> int:
    """Run one command and return its exit code."""
    with pytest.raises(SystemExit) as ended:
        main(args)
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path, Path]]:
    """Three finished runs: one whose prefix is cached, with waste; one of another model; one of a model nobody prices."""
    folder = tmp_path_factory.mktemp("runs")
    rows = [
        {"prompt": f"Look up {number}.", "expected": {"any_call": True}, "tags": ["even"] if number % 2 == 0 else ["odd"]}
        for number in range(24)
    ]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "job.toml").write_text(
        f'dataset = "data.jsonl"\n[request]\nmodel = "{SONNET}"\nmax_tokens = 200\ncache = "auto"\n'
        f'system = "{"Look things up, one after the other. " * 200}"\ntools = [{_toml(TOOL)}]\n[limits]\nmax_error_rate = 1.0\n'
    )
    paths = folder / "first", folder / "second", folder / "third"
    for path, model in zip(paths, (SONNET, HAIKU, "mystery"), strict=True):
        assert call("run", str(folder / "job.toml"), "--model", model, "--out", str(path), *QUICK) == 0
    yield paths
    shutil.rmtree(folder)


def _toml(value: object) -> str:
    """Return a value as an inline table of TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + "}"
    return json.dumps(value)


def priced(capsys: pytest.CaptureFixture[str], *args: object) -> dict[str, Any]:
    """Run `cost --format json` and return what it printed."""
    capsys.readouterr()
    assert call("cost", *map(str, args), "--format", "json") == 0
    value: dict[str, Any] = json.loads(capsys.readouterr().out, parse_float=Decimal)
    return value


def summary(run: Path) -> dict[str, Any]:
    """Return the cost in a run's own summary."""
    cost: dict[str, Any] = json.loads((run / "summary.json").read_text())["cost"]
    return cost


def test_without_a_change_it_says_what_the_run_itself_said(
    runs: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Figure by figure the run's summary, and line by line its cost.parquet."""
    got = priced(capsys, runs[0])
    assert got["billed"] == summary(runs[0])
    assert "repriced" not in got
    lines = [{**line, "cost": Decimal(line["cost"])} for line in got["billed_lines"]]
    assert lines == pq.read_table(runs[0] / "cost.parquet").to_pylist()


def test_each_what_if_alone(runs: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """Half through batches; the summary's own figure without caching; a reseller's multiplier; another model's prices."""
    run, was = runs[0], summary(runs[0])
    assert Decimal(was["cache_saved"]) > 0
    batch = priced(capsys, run, "--batch")["repriced"]
    assert Decimal(batch["total"]) == Decimal(was["total"]) / 2
    assert batch["answers"] == was["as_batch"]
    plain = priced(capsys, run, "--no-cache")["repriced"]
    assert plain["answers"] == was["without_cache"]
    assert set(plain["by_kind"]) <= {"input", "output", "wasted"}
    assert plain["by_kind"]["input"]["tokens"] > was["by_kind"]["input"]["tokens"]
    reseller = priced(capsys, run, "--set", "prices.multiplier=2", "--set", "prices.currency=EUR")
    assert Decimal(reseller["repriced"]["total"]) == Decimal(was["total"]) * 2
    assert (reseller["billed"]["currency"], reseller["repriced"]["currency"]) == ("USD", "EUR")
    haiku = priced(capsys, run, "--model", HAIKU)
    assert Decimal(haiku["repriced"]["total"]) < Decimal(was["total"]) / 3
    assert {line["model"] for line in haiku["repriced_lines"]} == {HAIKU}
    assert haiku["carried_over"] == 0


def test_a_book_of_one_s_own_and_a_day(runs: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    book = tmp_path / "book.toml"
    book.write_text(
        f'[[models]]\nmodel = "{SONNET}"\ninput = 0\noutput = 500000\ncache_read = 0\ncache_write_5m = 0\n'
        f'[[models]]\nmodel = "{SONNET}"\noutput = 1000000\nfrom_date = "2031-01-01"\n'
    )
    tokens = summary(runs[0])["by_kind"]["output"]["tokens"]
    got = priced(capsys, runs[0], "--prices", book)["repriced"]
    assert Decimal(got["by_kind"]["output"]["cost"]) == Decimal(tokens) / 2
    later = priced(capsys, runs[0], "--prices", book, "--date", "2031-06-01")["repriced"]
    assert Decimal(later["by_kind"]["output"]["cost"]) == tokens


def test_several_runs_are_added_up_and_an_unknown_model_is_named(
    runs: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """The total is of what is known; the table names the model, and shows no amount in its place."""
    got = priced(capsys, *runs)
    totals = [Decimal(summary(run)["total"]) for run in runs[:2]]
    assert Decimal(got["billed"]["total"]) == sum(totals)
    assert got["billed"]["unpriced"] == {"mystery": 24}
    assert got["billed"]["per_row"] is None
    assert call("cost", *map(str, runs), "--batch") == 0
    text = capsys.readouterr().out
    assert "no price is known for mystery: 24 answers are in no sum" in text
    assert "-50.0%" in text
    unknown = next(line for line in text.splitlines() if line.startswith("  mystery"))
    assert "$" not in unknown
    named = priced(capsys, *runs, "--set", f"prices.aliases={{mystery = '{HAIKU}'}}")
    assert named["repriced"]["unpriced"] == {}
    assert Decimal(named["repriced"]["total"]) > sum(totals)


def test_lines_go_out_as_csv_and_parquet(
    runs: tuple[Path, Path, Path], tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """The same lines in both, each side's adding up to its total."""
    run = str(runs[1])
    capfdbinary.readouterr()
    assert call("cost", run, "--batch", "--format", "csv") == 0
    lines = list(csv.DictReader(io.StringIO(capfdbinary.readouterr().out.decode())))
    out = tmp_path / "cost.parquet"
    assert call("cost", run, "--batch", "--format", "parquet", "-o", str(out)) == 0
    assert call("cost", run, "--batch", "--format", "csv", "-o", str(tmp_path / "cost.csv")) == 0
    table = pq.read_table(out).to_pylist()
    assert list(csv.DictReader(io.StringIO((tmp_path / "cost.csv").read_text()))) == lines
    assert [(line["prices"], line["kind"], Decimal(line["cost"])) for line in lines] == [
        (line["prices"], line["kind"], line["cost"]) for line in table
    ]
    totals = [
        sum(row["cost"] for row in table if (row["prices"], row["dimension"]) == (side, "total"))
        for side in ("billed", "repriced")
    ]
    assert totals[0] == Decimal(summary(runs[1])["total"]) == 2 * totals[1]
    assert call("cost", run, "--format", "table", "-o", str(tmp_path / "cost.txt")) == 0
    assert "per correct answer" in (tmp_path / "cost.txt").read_text()
    assert call("cost", run, "--format", "json", "-o", str(tmp_path / "cost.json")) == 0
    assert json.loads((tmp_path / "cost.json").read_text())["billed"] == summary(runs[1])


def test_a_reader_that_went_away_is_no_bug(runs: tuple[Path, Path, Path]) -> None:
    """As `batchrun cost … | head` ends: exit 1 would be a bug's."""
    gone, ours = os.pipe()
    os.close(gone)
    try:
        args = command("cost", runs[0], "--format", "csv")
        ended = subprocess.run(args, stdout=ours, stderr=subprocess.PIPE, env=environment(), check=False)
    finally:
        os.close(ours)
    assert (ended.returncode, ended.stderr) == (141, b"")


def test_without_its_journal_a_run_s_waste_is_carried_over_and_said_so(
    runs: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(runs[0], copy)
    shutil.rmtree(copy / "journal")
    whole, got = priced(capsys, runs[0], "--batch"), priced(capsys, copy, "--batch")
    assert (whole["carried_over"], got["carried_over"] > 0) == (0, True)
    assert got["repriced"]["wasted"] == whole["billed"]["wasted"] == summary(runs[0])["wasted"]
    assert Decimal(whole["repriced"]["wasted"]) == Decimal(whole["billed"]["wasted"]) / 2 > 0
    assert call("cost", str(copy), "--batch") == 0
    assert "carried over as it was billed" in capsys.readouterr().out


def test_what_the_run_had_no_price_for_and_what_was_free_stay_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A search that nobody priced is not in the columns; an answer out of the cache was free, of whatever model."""
    usage = {"input_tokens": 10, "output_tokens": 5, "server_tool_use": {"web_search_requests": 3}}

    async def searched(peer: Peer, asked: Asked) -> None:
        del asked
        await peer.say(reply(json.dumps(SAYS | {"usage": usage}).encode()))

    data, cache = tmp_path / "data.jsonl", f"engine.cache_dir={tmp_path / 'cache'}"
    data.write_text('{"prompt": "Look it up."}\n')
    own = 'prices.models=[{model = "m-1", input = 1, output = 2}]'
    with endpoint(searched) as server:
        asked = (str(data), "--base-url", server.base_url, "-q", "--cache", "--set", cache)
        for name, model in (("searched", "m-1"), ("first", "mystery"), ("again", "mystery")):
            assert call("run", *asked, "--model", model, "--set", own, "--out", str(tmp_path / name)) == 0
    for name, unpriced in (("searched", {"m-1": 1}), ("again", {})):
        was = summary(tmp_path / name)
        assert was["unpriced"] == unpriced
        assert priced(capsys, tmp_path / name)["billed"] == was
    assert Decimal(summary(tmp_path / "again")["total"]) == 0
    full = 'prices.models=[{model = "m-1", input = 1, output = 2, web_search = 10}]'
    repriced = priced(capsys, tmp_path / "searched", "--set", full)["repriced"]
    assert Decimal(repriced["total"]) == Decimal("0.03002")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--set", "limits.rpm=5"), "limits.rpm changes no price"),
        (("--date", "someday"), "is not an ISO date"),
        (("--prices", "nowhere.toml"), "nowhere.toml"),
        (("--format", "parquet"), "Parquet goes into a file"),
    ],
)
def test_what_cannot_be_is_refused(
    runs: tuple[Path, Path, Path], args: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("cost", str(runs[0]), *args) == 2
    assert said in capsys.readouterr().err


def test_runs_in_two_currencies_and_folders_that_are_no_runs(
    runs: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "euros"
    shutil.copytree(runs[0], copy)
    manifest = json.loads((copy / "run.json").read_text())
    manifest["notes"]["prices"]["terms"]["currency"] = "EUR"
    (copy / "run.json").write_text(json.dumps(manifest))
    assert call("cost", str(runs[0]), str(copy)) == 2
    assert "cannot be added up" in capsys.readouterr().err
    assert call("cost", str(tmp_path)) == 2
    (copy / "results.parquet").unlink()
    assert call("cost", str(copy)) == 2
    assert "has no results yet" in capsys.readouterr().err
