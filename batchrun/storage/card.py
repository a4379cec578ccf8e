"""A dataset card: the `README.md` that makes a folder with a `results.parquet` a dataset on the Hugging Face hub.

YAML front matter as the hub reads it, then a page for people: what was run, how it ended, what the columns are.
It describes one file and one manifest; publishing is up to the reader.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from batchrun.storage.manifest import Manifest
from batchrun.storage.trouble import translated
from batchrun.visible import visible

_SIZES: Final = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
)


def dataset_card(results: Path, manifest: Manifest, figures: Mapping[str, str] | None = None) -> str:
    """Return the card of a results file; `figures` (name → text) go into a table under the description. Raises `StorageError`."""
    with translated(results, "read"):
        metadata = pq.read_metadata(results)
    schema = metadata.schema.to_arrow_schema()
    title = f"{manifest.job_name}: tool calls, {manifest.started_at[:10]}"
    return "\n".join(
        [
            *_front_matter(title, metadata.num_rows, schema),
            *_body(title, metadata.num_rows, manifest, figures or {}),
            *_columns(schema),
        ]
    )


def _front_matter(title: str, rows: int, schema: pa.Schema) -> list[str]:
    """Return the YAML head. JSON strings are YAML strings, whatever is in them."""
    size = next((name for limit, name in _SIZES if rows < limit), "n>10M")
    features = [line for field in schema for line in _feature(field)]
    return [
        "---",
        f"pretty_name: {json.dumps(title)}",
        "tags:",
        "- tool-calling",
        "- function-calling",
        "- evaluation",
        "size_categories:",
        f"- {size}",
        "configs:",
        "- config_name: default",
        "  data_files:",
        "  - split: results",
        "    path: results.parquet",
        "dataset_info:",
        "  features:",
        *features,
        "  splits:",
        "  - name: results",
        f"    num_examples: {rows}",
        "---",
        "",
    ]


def _feature(field: pa.Field[Any], indent: str = "  ") -> list[str]:
    """Return the lines that describe one column as the hub's features do."""
    head, kind = f"{indent}- name: {field.name}", field.type
    if not pa.types.is_list(kind):
        return [head, f"{indent}  dtype: {_dtype(kind)}"]
    inner = kind.value_type
    if not pa.types.is_struct(inner):
        return [head, f"{indent}  list: {_dtype(inner)}"]
    return [head, f"{indent}  list:", *(line for part in inner for line in _feature(part, indent + "  "))]


def _dtype(kind: pa.DataType) -> str:
    """Return the hub's name of a type: Arrow's, but for these."""
    if pa.types.is_timestamp(kind):
        return "timestamp[us, tz=UTC]"
    return {"double": "float64"}.get(str(kind), str(kind).replace(" ", ""))


def _body(title: str, rows: int, manifest: Manifest, figures: Mapping[str, str]) -> list[str]:
    """Return the page's text."""
    simulated = (
        ["> **Simulated.** No model was asked: these answers come from batchrun's own simulator.", ""]
        if manifest.simulated
        else []
    )
    table = (
        ["| figure | value |", "|---|---|", *(f"| {_cell(name)} | {_cell(value)} |" for name, value in figures.items()), ""]
        if figures
        else []
    )
    of = f", of {manifest.price_date}" if manifest.price_date else ""
    return [
        f"# {_cell(title)}",
        "",
        *simulated,
        f"{rows} rows: one for each (row of the dataset, model, repeat), in the dataset's order.",
        "",
        f"- models: {', '.join(f'`{visible(name)}`' for name in manifest.identity.models)}",
        f"- dataset: `{visible(Path(manifest.dataset).name)}`, digest `{manifest.identity.dataset[:16]}`",
        f"- run: `{manifest.run_id}`, begun {manifest.started_at}",
        f"- made with batchrun {manifest.batchrun_version}",
        *([f"- prices: {manifest.price_book}{of}"] if manifest.price_book else []),
        "",
        *table,
    ]


def _columns(schema: pa.Schema) -> list[str]:
    """Return the table of columns."""
    lines = [f"| `{field.name}` | {_cell(str(field.type))} | {'yes' if field.nullable else 'no'} |" for field in schema]
    return ["## Columns", "", "| column | type | may be null |", "|---|---|---|", *lines, ""]


def _cell(text: str) -> str:
    """Return `text` fit for one cell of a Markdown table."""
    return str(visible(text)).replace("\n", " ").replace("|", "\\|").replace("<", "&lt;")
