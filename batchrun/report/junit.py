"""JUnit XML of a run: a test case a row, `<failure>` where the answer is wrong, `<error>` where there is none.

Written as the rows pass by, so a million rows need no memory. Text that XML cannot hold (control
characters) is replaced by U+FFFD; everything else is escaped.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

from batchrun.records import Row

_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")

NEEDED: Final = (
    *("id", "model", "repeat", "latency_ms", "correct"),
    *("outcome", "explanation", "error_type", "error_message", "tool_calls"),
)
"""The columns that test cases are made of."""


class JUnitWriter:
    """Writes one `<testsuites>` document to a binary stream: a suite a run."""

    def __init__(self, stream: IO[bytes], suite: str) -> None:
        """Open the document."""
        self._stream = stream
        self._write(f'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites><testsuite name={_attribute(suite)}>\n')

    def add(self, row: Row) -> None:
        """Write one row's test case."""
        self.add_many({name: (getattr(row, name),) for name in NEEDED})

    def add_many(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Write the test cases of rows by their columns (`NEEDED`)."""
        self._stream.write(cases(columns).encode())

    def copy(self, cases_file: Path) -> None:
        """Write test cases that stand in a file."""
        with cases_file.open("rb") as written:
            shutil.copyfileobj(written, self._stream)

    def next_suite(self, suite: str) -> None:
        """End the suite and begin another one."""
        self._write(f"</testsuite>\n<testsuite name={_attribute(suite)}>\n")

    def close(self) -> None:
        """End the document; the stream is the caller's to close."""
        self._write("</testsuite></testsuites>\n")

    def _write(self, text: str) -> None:
        self._stream.write(text.encode())


def cases(columns: Mapping[str, Sequence[Any]]) -> str:
    """Return the test cases of rows by their columns (`NEEDED`)."""
    models = {model: _attribute(model) for model in set(columns["model"])}
    lines = []
    rows = zip(*(columns[name] for name in ("id", "model", "repeat", "latency_ms", "correct")), strict=True)
    for place, (name, model, repeat, latency_ms, correct) in enumerate(rows):
        shown = _attribute(name if not repeat else f"{name} (repeat {repeat})")
        seconds = f' time="{latency_ms / 1000:.3f}"' if latency_ms is not None else ""
        body = "" if correct else _body(columns, place)
        head = f"<testcase classname={models[model]} name={shown}{seconds}"
        lines.append(f"{head}>{body}</testcase>\n" if body else f"{head}/>\n")
    return "".join(lines)


def _body(columns: Mapping[str, Sequence[Any]], place: int) -> str:
    """Return what stands inside the test case of a row that is not right."""
    outcome, explanation = columns["outcome"][place], columns["explanation"][place]
    if outcome == "infra_error":
        kind, message = columns["error_type"][place], columns["error_message"][place]
        return f"<error type={_attribute(kind or 'error')} message={_attribute(message or '')}/>"
    if outcome == "unscored":
        return f"<skipped message={_attribute(explanation or 'nothing expected')}/>"
    uses = columns["tool_calls"][place]
    calls = "\n".join(f"{call.name}({call.input if call.input is not None else call.raw or ''})" for call in uses)
    return f"<failure type={_attribute(outcome)} message={_attribute(explanation or '')}>{_escaped(_clean(calls))}</failure>"


def _clean(text: str) -> str:
    return text if text.isprintable() else _FORBIDDEN.sub("\ufffd", text)


def _escaped(text: str) -> str:
    """Return `text` as XML's character data; the standard library's own loads urllib's HTTP client to be imported."""
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        if character in text:
            text = text.replace(character, entity)
    return text


def _attribute(text: str) -> str:
    """Return `text` as a quoted attribute, in the quotes that it has none of."""
    text = _escaped(_clean(text))
    if not text.isprintable():
        text = text.replace("\n", "&#10;").replace("\r", "&#13;").replace("\t", "&#9;")
    if '"' not in text:
        return f'"{text}"'
    return "'" + text + "'" if "'" not in text else '"' + text.replace('"', "&quot;") + '"'
