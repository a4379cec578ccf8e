"""`run.json`: what a run is, so that it can be resumed, compared and trusted later.

The job is kept as it was resolved, less anything that looks like a credential; what was left out is listed
by its key path, so that a resumed run knows to take it from the job file again. `Identity` is the part of a
run that must not change under a journal: answers to different questions do not belong in one result.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import msgspec
from msgspec import Struct

from batchrun import __version__
from batchrun.errors import StorageError, UsageError
from batchrun.job import Job, digest, from_builtins, to_builtins
from batchrun.storage.atomic import write_bytes
from batchrun.storage.trouble import translated

SCHEMA_VERSION: Final = 1
LEFT_OUT: Final = "(not kept)"
_SECRET_HEADER: Final = re.compile(r"auth|cookie|key|token|secret|password|credential|signature", re.IGNORECASE)

State = Literal["running", "stopped", "collected", "finished"]
"""`stopped` early and resumable; `collected`: every row has landed; `finished`: results are written."""


class Identity(Struct, frozen=True, kw_only=True):
    """What the answers in a journal are answers to. Each field is a digest or a plain list, compared one by one."""

    dataset: str
    selection: str  # format, columns, rows chosen
    models: tuple[str, ...]
    repeat: int
    prompt: str  # every other field of [request] that changes what is sent
    simulated: bool

    @classmethod
    def of(cls, job: Job, dataset_digest: str, *, simulated: bool) -> Identity:
        """Return the identity of a run of `job` over the dataset with that digest."""
        request = msgspec.structs.replace(job.request, model=(), repeat=1, cache="off", cache_ttl="5m")
        selection = msgspec.json.encode((job.format, job.columns, job.select), order="deterministic")
        return cls(
            dataset=dataset_digest,
            selection=hashlib.sha256(selection).hexdigest(),
            models=job.request.model,
            repeat=job.request.repeat,
            prompt=digest(msgspec.structs.replace(job, request=request), "request"),
            simulated=simulated,
        )


class Counts(Struct, frozen=True, kw_only=True):
    """How far the run is, in rows of the result ((row, model, repeat) triples)."""

    total: int | None = None
    landed: int = 0
    succeeded: int = 0
    errored: int = 0
    canceled: int = 0
    expired: int = 0


class Manifest(Struct, frozen=True, kw_only=True):
    """The content of `run.json`."""

    run_id: str
    job_name: str
    job: dict[str, Any]  # resolved; see `public_job`
    identity: Identity
    state: State
    started_at: str  # ISO 8601, UTC
    schema_version: int = SCHEMA_VERSION
    batchrun_version: str = __version__
    job_file: str | None = None
    left_out: tuple[str, ...] = ()  # key paths in `job` whose values are secrets and not kept
    dataset: str = ""
    dataset_rows: int | None = None
    simulated: bool = False
    finished_at: str | None = None
    price_book: str | None = None
    price_date: str | None = None
    counts: Counts = Counts()
    stopped_because: str | None = None
    notes: dict[str, Any] = {}

    def resolved_job(self) -> Job:
        """Return the job as it was run; values in `left_out` read as `LEFT_OUT`."""
        return from_builtins(self.job)


def public_job(job: Job) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return (the job as plain values without credentials, key paths of what was left out).

    Left out: values of headers whose name speaks of a credential, user and password inside an address, the signature
    of a dataset's address, and the webhook's path and query, which is where such services keep their secret.
    """
    kept: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(to_builtins(job)))
    left_out = []
    headers = kept["endpoint"]["headers"]
    for name in headers:
        if _SECRET_HEADER.search(name):
            headers[name] = LEFT_OUT
            left_out.append(f"endpoint.headers.{name}")
    for section, key in (("endpoint", "base_url"), ("endpoint", "proxy"), ("notify", "webhook")):
        address = kept[section][key]
        public = without_credentials(address, whole=key == "webhook") if address else address
        if public != address:
            kept[section][key] = public
            left_out.append(f"{section}.{key}")
    kept["dataset"] = public_location(job.dataset)
    if kept["dataset"] != job.dataset:
        left_out.append("dataset")
    return kept, tuple(left_out)


def public_location(location: str) -> str:
    """Return where a dataset is, without a query that opens it to whoever has it, as a signed address has."""
    return urlunsplit(urlsplit(location)._replace(query="")) if signatures(location) else location


def signatures(address: str) -> list[str]:
    """Return the values in an address's query that open it, by the names they go under; a path has none."""
    pairs = parse_qsl(urlsplit(address).query) if "://" in address else ()
    return [value for name, value in pairs if _SECRET_HEADER.search(name) or name.lower() == "sig"]


def without_credentials(address: str, *, whole: bool = False) -> str:
    """Return `address` without its user and password; with `whole`, without path and query too."""
    parts = urlsplit(address)
    host = parts.netloc.rpartition("@")[2]
    if whole:
        return f"{parts.scheme}://{host}/{LEFT_OUT}"
    return urlunsplit((parts.scheme, host, parts.path, parts.query, parts.fragment))


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Put `manifest` at `path`, whole or not at all. Raises `StorageError`."""
    write_bytes(path, msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")


def read_manifest(path: Path) -> Manifest:
    """Return the manifest at `path`. Raises `UsageError` when there is none, `StorageError` when it cannot be understood."""
    if not path.is_file():
        raise UsageError(
            f"{path.parent}: is not the folder of a run: there is no {path.name}", hint="batchrun history JOB lists runs"
        )
    with translated(path, "read"):
        content = path.read_bytes()
    try:
        version = msgspec.json.decode(content, type=_Version).schema_version
        if version > SCHEMA_VERSION:
            raise StorageError(f"{path}: was written by a later version of batchrun", hint="pip install --upgrade batchrun")
        return msgspec.json.decode(content, type=Manifest)
    except msgspec.DecodeError as error:
        raise StorageError(
            f"{path}: is not a manifest: {error}", hint="the run cannot be resumed; its journal is still valid"
        ) from None


def require_same(stored: Identity, now: Identity, *, force: bool = False) -> None:
    """Raise `UsageError` naming everything that changed between the run and the resuming of it.

    With `force` only what cannot be mixed is refused: an answer is kept by its place among (row, model, repeat), so with
    other models or repeats it would stand under another call. Whether the rows have kept their places is the caller's to
    find out; it can only be told where the choice of rows is the one of before.
    """
    changed = [name for name in Identity.__struct_fields__ if getattr(stored, name) != getattr(now, name)]
    unmixable = _PLACES | (_ROWS if set(changed) >= _ROWS else set())
    refused = [name for name in changed if not force or name in unmixable]
    if refused:
        words = ", ".join(_CHANGED[name] for name in refused)
        raise UsageError(f"this run cannot be resumed as it is: {words} changed since it began", hint=_way_out(changed))


def _way_out(changed: Sequence[str]) -> str:
    """Return what can be done about the changes, and what --force does of it."""
    new = "begin a new run (--out with another folder)"
    if _PLACES & set(changed):
        return f"{new}, or put request.model and request.repeat back: --force cannot mix these"
    if set(changed) >= _ROWS:
        return f"{new}, or undo one of the two: --force goes on with other rows chosen or with another dataset, not with both"
    if "dataset" in changed:
        return f"{new}, undo the change, or resume with --force: it goes on where {KEPT_ROWS}"
    return f"{new}, undo the change, or resume with --force to mix both in one result"


KEPT_ROWS: Final = "every row of before is in its old place, with its id and its messages"
"""When the answers to a dataset may stand beside another dataset's rows."""

_PLACES: Final = frozenset({"models", "repeat"})
"""With the dataset's rows, what an ordinal's meaning comes from."""

_ROWS: Final = frozenset({"dataset", "selection"})

_CHANGED: Final = {
    "dataset": "the dataset",
    "selection": "the choice of rows or columns",
    "models": "the models",
    "repeat": "the number of repeats",
    "prompt": "the request (system, tools, parameters)",
    "simulated": "whether it is simulated",
}


class _Version(Struct, kw_only=True):
    """The one field that every version of the manifest has."""

    schema_version: int = SCHEMA_VERSION
