"""A job, before anything is made for it → everything that would keep its run from making its first call.

Each part that refuses a job (address, headers, credential, transport, scorer, prices, budget) is made here as the run will
make it, and let go: the rules stay where the parts are, and what they say becomes a `Problem` of the job file. Nothing is
connected, no credential is needed, and nothing is written. The rooms above hand in their own checks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Final

from batchrun.errors import DatasetError, JobError, Problem, UsageError
from batchrun.job import Job
from batchrun.prepare import Options, book_of, require_prices

CODE: Final = "job"

Check = tuple[str | None, Callable[[], object]]
"""What raises a `UsageError` where the job does not fit, and the key of the job that it is about unless it says so itself."""


def require_fit(job: Job, options: Options, environ: Mapping[str, str], checks: Sequence[Check] = ()) -> None:
    """Raise `JobError` with everything that keeps a run of `job` from making its first call; `checks` are made too."""
    problems = misfits(job, options, environ, checks)
    if problems:
        raise JobError(problems)


def misfits(job: Job, options: Options, environ: Mapping[str, str], checks: Sequence[Check] = ()) -> list[Problem]:
    """Return everything that keeps a run of `job` from making its first call, but for what is wrong with its dataset."""
    every = [*_of_endpoint(job, options, environ), *_of_job(job), *checks]
    found = [problem for field, check in every for problem in _made(field, check, options.job_file)]
    return list(dict.fromkeys(found))  # what several parts need may be refused by each


def problems_of(error: UsageError) -> list[Problem]:
    """Return what an error says as problems: its own, or the one that it is."""
    if isinstance(error, JobError | DatasetError):
        return list(error.problems)
    return [Problem(message=str(error), hint=error.hint)]


def _made(field: str | None, check: Callable[[], object], file: str | None) -> list[Problem]:
    """Return what one check finds, with the job's file and key where it names none."""
    try:
        check()
    except UsageError as error:
        found = [problem._replace(field=problem.field or field) for problem in problems_of(error)]
        return [one._replace(file=one.file or (file if one.field else None), code=one.code or CODE) for one in found]
    return []


def _of_endpoint(job: Job, options: Options, environ: Mapping[str, str]) -> Iterator[Check]:
    """Yield what is made of `[endpoint]`; a simulated one has an address, a way and no credential of its own."""
    from batchrun.transport import Credential, way_of  # noqa: PLC0415 - loaded when a run begins
    from batchrun.transport.address import parse_base_url  # noqa: PLC0415
    from batchrun.transport.headers import request_headers  # noqa: PLC0415

    endpoint = job.endpoint
    if not options.simulate:
        yield None, lambda: parse_base_url(endpoint.base_url)
        yield "endpoint.proxy" if endpoint.proxy else None, lambda: way_of(endpoint, environ)
        yield None, lambda: Credential.from_environment(endpoint, environ)
        if endpoint.ca_file is not None and endpoint.base_url.startswith("https:"):
            from batchrun.transport.trust import client_context  # noqa: PLC0415

            yield "endpoint.ca_file", lambda: client_context(endpoint.ca_file, environ)
    yield None, lambda: request_headers(endpoint, Credential())


def _of_job(job: Job) -> Iterator[Check]:
    """Yield what is made of the other tables; what loads a library is made only where the run will load it too."""
    if job.scoring.scorer is not None:
        from batchrun.scoring import open_scorer  # noqa: PLC0415 - only for a scorer of the user's own

        yield "scoring.scorer", lambda: open_scorer(job.scoring)
    rule = job.scoring.stop_when
    if rule is not None and rule.decided_against is not None:
        from batchrun.engine.other_run import read_verdicts  # noqa: PLC0415 - only for `scoring.stop_when`

        against = rule.decided_against
        yield "scoring.stop_when.decided_against", lambda: read_verdicts(against, job.request.model)
    yield "prices", lambda: require_prices(job, book_of(job))
    if job.observe.otel:
        yield "observe.otel", lambda: import_module("batchrun.observe.otel")
    if job.engine.kind == "ray":
        yield "engine.kind", lambda: import_module("batchrun.cluster")
