"""One run's observers behind one value: the composition root opens it, the engine tells it, the end closes it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from batchrun import __version__
from batchrun.errors import BatchrunError
from batchrun.job import Job
from batchrun.observe.log import EventLog, RunLog
from batchrun.observe.redaction import Redactor, redactor_of
from batchrun.records import Attempt

if TYPE_CHECKING:
    from batchrun.observe.otel import OtelObserver

_SDK: Final = "opentelemetry"


class RunObserver:
    """Tells the log and, where it is asked for, OpenTelemetry; fits `engine.ports.Observer`."""

    def __init__(self, job: Job, run_id: str, environ: Mapping[str, str]) -> None:
        """Open the log. Raises `StorageError` where that cannot be done."""
        self._job, self._run_id, self._environ = job, run_id, environ
        self._redactor = redactor_of(job, environ)
        self.log = RunLog(EventLog(job.observe, self._redactor, {"job": job.name, "run_id": run_id}), job)
        self._otel: OtelObserver | None = None
        self._trouble = _Trouble(self.log)

    def attach(self, called: Job) -> None:
        """Begin with OpenTelemetry, where it is asked for; `called` is the job with the address that is called.

        Raises `MissingExtra` where it is not installed.
        """
        if self._job.observe.otel:
            self._otel = open_otel(called, self._run_id, self._environ, self._redactor)
            logging.getLogger(_SDK).addHandler(self._trouble)

    def started(self, called: Job, folder: str) -> None:
        """Take note that the calls of `called` are about to be made."""
        self.attach(called)
        self.log.started(
            folder=folder,
            dataset=called.dataset,
            models=called.request.model,
            repeat=called.request.repeat,
            base_url=called.endpoint.base_url,
            version=__version__,
        )

    def ended(self, attempt: Attempt, wait_s: float | None) -> None:
        """Take note of an attempt that has ended; its row is tried again after `wait_s` seconds, if at all."""
        if attempt.failure is not None:
            self.log.ended(attempt, wait_s)
        if self._otel is not None:
            self._otel.ended(attempt)

    def paused(self, seconds: float, *, outage: bool = False) -> None:
        """Take note that the run sends nothing for so long: as the endpoint wants or, in an `outage`, as we do."""
        self.log.paused(seconds, outage=outage)

    def finished(self, summary: Mapping[str, Any], stopped: BatchrunError | None) -> None:
        """Take note of how the run ended."""
        self.log.finished(summary, stopped)

    def close(self) -> None:
        """Send and write what is left."""
        if self._otel is not None:
            self._otel.close()
            logging.getLogger(_SDK).removeHandler(self._trouble)
        self.log.close()


class _Trouble(logging.Handler):
    """Makes events of what the OpenTelemetry SDK logs: a collector that cannot be reached, most of the time."""

    def __init__(self, log: RunLog) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Log it; threads of the SDK call this."""
        self._log.untold(record.getMessage())


def open_otel(job: Job, run_id: str, environ: Mapping[str, str], redactor: Redactor) -> OtelObserver:
    """Return the observer that speaks OpenTelemetry. Raises `MissingExtra`."""
    from batchrun.observe.otel import OtelObserver, Providers  # noqa: PLC0415 - an optional extra

    return OtelObserver(job, run_id, Providers.of(environ), redactor)


@contextmanager
def observing(job: Job, run_id: str, environ: Mapping[str, str]) -> Iterator[RunObserver]:
    """Observe one run while the block lasts; an error that leaves the block is an event too."""
    observer = RunObserver(job, run_id, environ)
    try:
        yield observer
    except Exception as error:
        observer.log.stopped(error)
        raise
    finally:
        observer.close()
