"""What a command loads: a run that needs none of it loads no second HTTP client, no price library, no data frames."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.endpoint import WEATHER, Shell, endpoint

UNUSED = {
    "aiolimiter", "batchrun.estimation", "batchrun.simulator", "email.message", "genai_prices", "http.client", "httpx",
    "importlib.metadata", "jsonschema", "opentelemetry", "pandas", "polars", "pydantic", "ray", "rich", "scipy", "sqlite3",
    "urllib.request", "vl_convert", "xml.sax",
}  # fmt: skip
ROW = {"prompt": "Weather?", "tools": [WEATHER], "expected": [{"name": "get_weather", "arguments": {"location": "Paris"}}]}
MODEL = "claude-sonnet-4-20250514"


def loaded(*args: str | Path) -> tuple[set[str], int]:
    """The modules that a command line has loaded when it ends, and how many templates it has compiled."""
    code = (
        "import sys, json\n"
        "from batchrun.cli import main\n"
        "compiled = []\n"
        "def hook(event, args):\n"
        "    if event == 'compile' and str(args[1]).endswith('.html'): compiled.append(args[1])\n"
        "sys.addaudithook(hook)\n"
        f"try: main({[str(arg) for arg in args]!r})\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "print('\\n' + json.dumps([sorted(sys.modules), len(compiled)]))\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    modules, compiled = json.loads(out.stdout.splitlines()[-1])
    return set(modules), compiled


def test_a_run_loads_what_it_uses_and_the_price_library_once_for_all_runs(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run of a user looks the price up and compiles the page's templates; later ones find both, and say the same."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = shell.write("weather.jsonl", *({**ROW, "id": f"r{number}"} for number in range(3)))
    found = []
    with endpoint() as served:
        for name in ("first", "second"):
            run = ["run", data, "--model", MODEL, "--base-url", served.base_url, "--out", str(tmp_path / name)]
            found.append(loaded(*run, "--quiet", "--set", "name=weather"))
    (first, compiled), (second, compiled_again) = found
    assert "genai_prices" in first
    assert compiled
    assert second & UNUSED == set()
    assert not compiled_again
    summaries = [json.loads((tmp_path / name / "summary.json").read_text()) for name in ("first", "second")]
    assert summaries[0]["models"][0]["cost"] == summaries[1]["models"][0]["cost"]
    assert float(summaries[0]["models"][0]["cost"]["total_usd"]) > 0
    kept = [json.loads((tmp_path / name / "run.json").read_text())["notes"]["prices"] for name in ("first", "second")]
    assert kept[0] == kept[1]


def test_commands_on_finished_runs_load_neither_pandas_nor_the_price_library(shell: Shell, tmp_path: Path) -> None:
    """Nor do they a second HTTP client. pyarrow would load pandas by itself, wherever it is installed."""
    data = shell.write("weather.jsonl", ROW)
    job = tmp_path / "nightly.toml"
    with endpoint() as served:
        job.write_text(f'dataset = "{data}"\n[request]\nmodel = "{MODEL}"\n[endpoint]\nbase_url = "{served.base_url}"\n')
        assert shell("run", data, "--model", MODEL, "--base-url", served.base_url, "--out", str(tmp_path / "out"), "-q").code == 0
        for _ in range(2):
            assert "pandas" not in loaded("run", job, "--quiet")[0], "the second finds a history"
    assert "pandas" not in loaded("history", "nightly")[0]
    assert "pandas" not in loaded("convert", data, "-o", tmp_path / "rows.parquet")[0]
    assert "pandas" not in loaded("cost", tmp_path / "out", "--format", "csv")[0]
    for command in (
        ("score", tmp_path / "out", "--quiet"),
        ("export", tmp_path / "out", "--out", tmp_path / "rows.jsonl"),
        ("export", tmp_path / "out", "--out", tmp_path / "rows.csv"),
    ):
        modules, _ = loaded(*command)
        assert not modules & {"pandas", "pydantic", "genai_prices", "polars", "httpx"}, command
