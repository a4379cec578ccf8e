"""Events of a run → lines of a log: JSON objects for machines, or the few that a person should know as text.

    {"ts": "2026-01-01T06:00:00.123Z", "level": "warning", "event": "run_paused", "job": "weather", "run_id": "…", "wait_s": 30.0}

Lines go to stderr or to a file, secrets taken out. A log that cannot be written is given up and the run goes on:
what has been paid for is worth more than a line about it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final, Literal

import msgspec

from batchrun.errors import BatchrunError, StorageError
from batchrun.job import Job, Observe
from batchrun.observe.redaction import Redactor, redactor_of
from batchrun.records import Attempt
from batchrun.visible import visible

Level = Literal["info", "warning", "error"]

MOST_MESSAGE: Final = 500  # characters of an endpoint's words
TOLD_PAUSE_S: Final = 5.0  # a shorter pause is no news to a person
SAME_PAUSE_S: Final = 1.0  # many calls meet one limit: their waits end within this

_encode: Final = msgspec.json.Encoder(decimal_format="string").encode


class EventLog:
    """Writes events, each with `base`'s fields. Raises `StorageError` where its file cannot be opened."""

    def __init__(self, spec: Observe, redactor: Redactor, base: Mapping[str, Any]) -> None:
        """Log as `spec` says; the file is made, with its folder, where it is not there."""
        self._format, self._redactor, self._base = spec.log_format, redactor, dict(base)
        self._file: IO[str] | None = None
        if spec.log_file is not None and spec.log_format != "off":
            self._file = _opened(Path(spec.log_file))

    def event(self, name: str, level: Level = "info", *, words: str | None = None, **fields: Any) -> None:
        """Log one event; in the text format its `words`, where it has any."""
        if self._format == "json":
            moment = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            told = self._redactor.clean({**self._base, **fields})
            self._write(_encode({"ts": moment, "level": level, "event": name, **told}).decode())
        elif self._format == "text" and words is not None:
            self._write(self._redactor.text(f"{level}: {visible(words)}"))

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _write(self, line: str) -> None:
        try:
            stream = sys.stderr if self._file is None else self._file
            stream.write(line + "\n")
            stream.flush()
        except (OSError, ValueError):  # a full disk, a reader that went away, a stream closed under us
            self._format = "off"


def events_on_stderr(job: Job, environ: Mapping[str, str]) -> EventLog | None:
    """Return a log for what happens around the run of `job`, where stderr is for events alone; else None."""
    if job.observe.log_format != "json" or job.observe.log_file is not None:
        return None
    return EventLog(job.observe, redactor_of(job, environ), {"job": job.name})


def _opened(path: Path) -> IO[str]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror}", hint="observe.log_file names it") from None


def why_paused(*, outage: bool) -> str:
    """Return the words before how long the run sends nothing: by our own choice in an `outage`, else by the endpoint's."""
    return "no call is answered; trying again in" if outage else "paused by the endpoint for"


class RunLog:
    """The events of one run."""

    def __init__(self, log: EventLog, job: Job) -> None:
        """Tell rows by their place in the dataset, models and repeats by the job."""
        self._log = log
        self._models, self._repeats = job.request.model, job.request.repeat
        self._paused_until = 0.0
        self._untold = False

    def started(self, **facts: Any) -> None:
        """Log that calls are about to be made."""
        self._log.event("run_started", **facts)

    def ended(self, attempt: Attempt, wait_s: float | None) -> None:
        """Log an attempt that failed: its row (0-based place in the dataset), why, and when it is tried again."""
        failure = attempt.failure
        if failure is None:
            return
        self._log.event(
            "attempt_failed",
            "warning" if attempt.final else "info",
            row=attempt.ordinal // (len(self._models) * self._repeats),
            model=attempt.model,
            repeat=attempt.ordinal % self._repeats,
            attempt=attempt.attempt,
            final=attempt.final,
            kind=failure.kind,
            type=failure.type,
            status=failure.status,
            message=failure.message[:MOST_MESSAGE],
            wait_s=None if wait_s is None else round(wait_s, 3),
            request_id=attempt.request_id,
        )

    def paused(self, seconds: float, *, outage: bool = False) -> None:
        """Log that the run sends nothing for a while, in an `outage` by our own choice; waits that end together are one pause."""
        until = time.monotonic() + seconds
        if until < self._paused_until + SAME_PAUSE_S:
            return
        self._paused_until = until
        words = f"{why_paused(outage=outage)} {seconds:.0f} s" if seconds >= TOLD_PAUSE_S else None
        self._log.event("run_paused", "warning", words=words, wait_s=round(seconds, 3), outage=outage)

    def untold(self, reason: str) -> None:
        """Log that telemetry could not be sent; a person is told once."""
        words = None if self._untold else f"telemetry is not sent: {reason[:MOST_MESSAGE]}"
        self._untold = True
        self._log.event("telemetry_failed", "warning", words=words, reason=reason[:MOST_MESSAGE])

    def finished(self, summary: Mapping[str, Any], stopped: BatchrunError | None) -> None:
        """Log how the run ended, with its figures."""
        figures = {
            "rows": summary["rows"],
            "wall_s": summary["wall_s"],
            "cost_usd": summary["cost"]["total"],
            "models": [
                {name: model[name] for name in ("model", "accuracy", "outcomes", "tokens")} for model in summary["models"]
            ],
        }
        if stopped is None:
            self._log.event("run_finished", **figures)
        else:
            self.stopped(stopped, **figures)

    def stopped(self, error: BaseException, **figures: Any) -> None:
        """Log why the run ended before its rows did."""
        code, hint = (error.exit_code, error.hint) if isinstance(error, BatchrunError) else (1, None)
        self._log.event("run_stopped", "error", reason=str(error), hint=hint, exit_code=code, **figures)

    def close(self) -> None:
        """Close the log."""
        with suppress(OSError):  # as with any other line: what could not be written is given up
            self._log.close()
