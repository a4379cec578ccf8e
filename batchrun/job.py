"""The job file as frozen values: TOML text in, `Job` out, with every problem reported at once.

Each TOML table is a frozen struct below; its fields are the keys, their types are the check and their
defaults the documentation. Values are layered (default < job file < environment < flag) by merging
plain dicts before they are converted, so a wrong value names the key and the layer it came from. This
module is pure: it is handed text and mappings, and knows no file, clock or environment of its own.
"""

from __future__ import annotations

import difflib
import hashlib
import math
import re
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from datetime import date, time
from decimal import Decimal
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from batchrun.errors import JobError, Problem

Positive = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(ge=0, le=1)]
Money = Annotated[Decimal, Meta()]


class Timeout(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds on one attempt, in seconds."""

    connect_s: Positive = 10
    first_byte_s: Positive = 120
    idle_s: Positive = 60
    total_s: Positive = 600


class Endpoint(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the calls go. The credential is never here: it comes from the environment."""

    base_url: str = "https://api.anthropic.com"
    auth: Literal["bearer", "x-api-key", "none"] | None = None  # None: by which variable is set
    version: str = "2023-06-01"
    headers: dict[str, str] = {}
    timeout: Timeout = Timeout()
    transport: Literal["auto", "own", "httpx"] = "auto"  # auto: own, httpx where a proxy or HTTP/2 is asked for
    proxy: str | None = None
    http2: bool = False
    ca_file: str | None = None
    max_reply_mb: Positive = 64


class RequestSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked of the model, for every row; a row's own fields win."""

    model: tuple[str, ...] = ()
    max_tokens: Count = 1024
    stream: bool = True
    system: str | list[Any] | None = None
    tools: list[Any] | None = None
    tool_choice: dict[str, Any] | None = None
    params: dict[str, Any] = {}  # any further body field, verbatim
    repeat: Count = 1
    cache: Literal["off", "auto"] = "off"  # prompt-cache-aware order
    cache_ttl: Literal["5m", "1h"] = "5m"
    mode: Literal["messages", "batches"] = "messages"


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the run may use: rates a minute, money, tries, time."""

    concurrency: Count = 64
    rpm: Positive | None = None
    itpm: Positive | None = None
    otpm: Positive | None = None
    burst_s: NotNegative = 0  # seconds' worth of budget that may be sent at once at the start
    max_cost_usd: Money | None = None
    allow_unpriced: bool = False
    max_attempts: Count = 8
    max_wait_s: NotNegative = 600
    max_error_rate: Share = 0.05
    max_consecutive_errors: Count = 100
    deadline_s: Positive | None = None
    grace_s: NotNegative = 30  # how long calls in flight may finish after the first signal


class StopWhen(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Stop once the answer is known (anytime-valid)."""

    ci_half_width: Share | None = None
    decided_against: str | None = None
    alpha: Share = 0.05


class Scoring(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How answers are judged."""

    profile: Literal["default", "exact", "bfcl"] = "default"
    order: Literal["any", "strict"] = "any"
    extra_calls: Literal["wrong", "allowed"] = "wrong"
    scorer: str | None = None  # "pkg.module:Class"
    scorer_options: dict[str, Any] = {}
    confidence: Share = 0.95
    seed: int = 0
    stop_when: StopWhen | None = None


class NoRegression(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fail on a significant loss against another run of this job."""

    against: str = "last"  # "last" | "baseline" | a run
    alpha: Share = 0.05


class Gate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What must hold for exit 0; None is not checked."""

    min_accuracy: Share | None = None
    on: Literal["point", "lower"] = "point"  # which end of the interval `min_accuracy` is held to
    max_error_rate: Share | None = None
    max_cost_usd: Money | None = None
    max_p95_latency_ms: Positive | None = None
    no_regression: NoRegression | None = None
    max_drift_sd: Positive | None = None  # against the rolling baseline


class Schedule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When `batchrun schedule` runs the job."""

    cron: str | None = None
    every_s: Positive | None = None
    timezone: str = "UTC"
    catch_up: Literal["skip", "latest", "all"] = "latest"
    jitter_s: NotNegative = 0
    deadline_s: Positive | None = None


class History(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many finished runs of the job are kept; what was stopped and paid for stays until it is resumed or removed by hand."""

    keep_runs: Count | None = None
    keep_days: Positive | None = None


class Notify(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who is told how a run ended."""

    on: Literal["failure", "recovery", "always"] | tuple[Literal["failure", "recovery", "always"], ...] = "failure"
    command: tuple[str, ...] = ()
    webhook: str | None = None
    webhook_env: str | None = None  # the variable that holds the webhook's URL, where that is a secret
    style: Literal["json", "slack"] = "json"
    timeout_s: Positive = 10
    retries: Annotated[int, Meta(ge=0)] = 3


class Observe(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a run tells of itself while it goes on, apart from its progress."""

    otel: bool = False  # OpenTelemetry spans and metrics, to where the OTEL_* variables say
    otel_content: bool = False  # with `otel`: the model's words and calls in the spans too
    log_format: Literal["off", "text", "json"] = "text"  # text: only what a person should know; json: every event
    log_file: str | None = None  # None: stderr


class Faults(
    Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    rename={"http_429": "429", "http_529": "529", "http_500": "500"},
):
    """How often the simulator misbehaves, each a share of requests."""

    http_429: Share = 0
    http_529: Share = 0
    http_500: Share = 0
    error_event: Share = 0
    cut: Share = 0
    stall: Share = 0
    bad_json: Share = 0


class Simulate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The local endpoint that answers with `--simulate`."""

    seed: int = 1
    accuracy: Share = 0.9
    first_byte_ms: NotNegative = 200
    token_ms: NotNegative = 10
    faults: Faults = Faults()
    cache: bool = True  # the prompt-cache model
    rpm: Positive | None = None  # the simulated account's own limits: 429 above them
    itpm: Positive | None = None
    otpm: Positive | None = None
    form: Literal["anthropic_sse", "anthropic_json", "openai_sse", "openai_json", "asked"] = "asked"


class Engine(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which machinery drives the calls."""

    kind: Literal["local", "ray"] = "local"
    workers: Count = 1
    address: str | None = None
    cache: bool = False  # the response cache across runs (`--cache`)
    cache_dir: str | None = None


class Select(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which rows of the dataset are run."""

    limit: Count | None = None
    sample: Count | None = None
    seed: int = 0
    where: str | None = None  # a polars SQL condition
    shard: str | None = None  # "3/16"


class PriceOverride(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prices of one model, in `currency` per million tokens; None falls back to the library's."""

    model: str
    input: Money | None = None
    output: Money | None = None
    cache_read: Money | None = None
    cache_write_5m: Money | None = None
    cache_write_1h: Money | None = None
    web_search: Money | None = None  # per 1,000 requests
    from_date: str | None = None  # ISO date, inclusive
    to_date: str | None = None  # ISO date, exclusive


class Prices(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The user's own price book, over the library's."""

    file: str | None = None
    provider: str = "anthropic"
    multiplier: Money = Decimal(1)  # a reseller's mark-up or discount, on everything
    batch_discount: Money = Decimal("0.5")  # factor on every price of the Batches endpoint
    currency: str = "USD"
    date: str | None = None  # price as of this ISO date instead of each call's
    models: tuple[PriceOverride, ...] = ()
    aliases: dict[str, str] = {}  # a model's name here → the name it is priced as


class Job(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One job: what to run, against what, within which limits, judged how."""

    name: str
    dataset: str
    format: str | None = None  # None: detected
    columns: dict[str, str] = {}  # our field → column name or JSON path in the dataset
    on_bad_row: Literal["fail", "skip"] = "fail"
    out: str | None = None  # the run's folder; None: reports/<name>/<run_id>
    select: Select = Select()
    endpoint: Endpoint = Endpoint()
    request: RequestSpec = RequestSpec()
    limits: Limits = Limits()
    scoring: Scoring = Scoring()
    gate: Gate = Gate()
    schedule: Schedule = Schedule()
    history: History = History()
    notify: Notify = Notify()
    observe: Observe = Observe()
    simulate: Simulate = Simulate()
    engine: Engine = Engine()
    prices: Prices = Prices()


def parse_job(
    text: str,
    *,
    file: str | None = None,
    overrides: Sequence[tuple[str, object]] = (),
    default_name: str | None = None,
    default_dataset: str | None = None,
    model_hint: str | None = None,
) -> Job:
    """Return the job that TOML `text` describes, `overrides` laid over it as (key path, value) pairs.

    With `model_hint`, which says how to name one, a job without a model is wrong.

    Raises `JobError` with every problem found: syntax, unknown keys (with the nearest known one),
    wrong types and values out of range, each with its key path.
    """
    try:
        table = tomllib.loads(text.removeprefix("\ufeff"))  # Windows editors begin a file with a byte order mark
    except tomllib.TOMLDecodeError as error:
        raise JobError([Problem(message=f"not valid TOML: {error}", file=file)]) from None
    except RecursionError:
        raise JobError([Problem(message="not valid TOML: nested too deeply", file=file)]) from None
    if default_name is not None:
        table.setdefault("name", default_name)
    if default_dataset is not None:
        table.setdefault("dataset", default_dataset)
    return _made(table, overrides, file, model_hint)


def with_overrides(job: Job, overrides: Sequence[tuple[str, object]]) -> Job:
    """Return the job with `overrides` laid over it; raises `JobError` as `parse_job` does."""
    return _made(to_builtins(job), overrides, None)


def _made(table: dict[str, Any], overrides: Sequence[tuple[str, object]], file: str | None, model_hint: str | None = None) -> Job:
    """Return the job of a table with `overrides` laid over it, or raise all that is wrong with it."""
    problems: list[Problem] = []
    for path, value in overrides:
        _lay(table, path, value, problems)
    job = _convert(table, Job, "", file, problems)
    if isinstance(job, Job):
        problems.extend(_contradictions(job, file))
        if model_hint is not None and not (job.request.model and all(job.request.model)):
            problems.append(Problem(file=file, field="request.model", message="is missing", hint=model_hint))
    if problems or not isinstance(job, Job):
        raise JobError(problems)
    return job


def parse_set(assignment: str) -> tuple[str, object]:
    """Split one `--set key.path=value`; the value is read as TOML, else taken as a string."""
    path, equals, value = assignment.partition("=")
    if not equals or not path.strip():
        problem = Problem(message=f"--set takes key.path=value, not {assignment!r}", hint="--set limits.rpm=600")
        raise JobError([problem])
    return path.strip(), parse_value(value.strip())


def parse_value(text: str) -> object:
    """Read `text` as one TOML value (`5`, `true`, `["a", "b"]`), or as the string it is, as a date or a time is too."""
    try:
        value: object = tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
    return text if isinstance(value, date | time) else value


def digest(job: Job, *sections: str) -> str:
    """Return a SHA-256 over the named sections of the job (all, when none is named), as hex."""
    chosen = {name: getattr(job, name) for name in (sections or job.__struct_fields__)}
    return hashlib.sha256(msgspec.json.encode(chosen, order="deterministic")).hexdigest()


def to_builtins(job: Job) -> dict[str, Any]:
    """Return the job as plain JSON-ready values, for `run.json`; money as decimal text."""
    return typing.cast("dict[str, Any]", msgspec.to_builtins(job, str_keys=True))


def from_builtins(values: Mapping[str, Any]) -> Job:
    """Return the job that `to_builtins` wrote."""
    return msgspec.convert(values, Job, strict=False)


def _lay(table: dict[str, Any], path: str, value: object, problems: list[Problem]) -> None:
    """Set `value` at the dotted `path`, making tables on the way."""
    *parents, last = path.split(".")
    here = table
    for depth, key in enumerate(parents):
        inner = here.setdefault(key, {})
        if not isinstance(inner, dict):
            problems.append(Problem(message="is a value, not a table", field=".".join(parents[: depth + 1])))
            return
        here = inner
    here[last] = value


def _convert(value: object, kind: Any, path: str, file: str | None, problems: list[Problem]) -> object:
    """Convert one TOML value to `kind`, table by table, so that each wrong key is a problem of its own."""
    struct = _struct_of(kind)
    if struct is None or not isinstance(value, dict):
        try:
            return _finite(msgspec.convert(_widened(value, kind), kind, strict=False))
        except (msgspec.ValidationError, ValueError, OverflowError) as error:
            problems.append(Problem(message=str(error).partition(" - at `")[0], file=file, field=path or None))
            return UNSET
    fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    got: dict[str, Any] = {}
    for key, inner in value.items():
        where = f"{path}.{key}" if path else key
        if key not in fields:
            problems.append(_unknown(key, where, list(fields), file))
            continue
        converted = _convert(inner, fields[key].type, where, file, problems)
        if not isinstance(converted, UnsetType):
            got[fields[key].name] = converted
    missing = [f for f in fields.values() if f.required and f.encode_name not in value]
    problems.extend(
        Problem(message="is missing", file=file, field=f"{path}.{f.encode_name}" if path else f.encode_name) for f in missing
    )
    if any(field.required and field.name not in got for field in fields.values()):
        return UNSET
    return struct(**got)


def _finite(value: object) -> object:
    """Return `value`; raise `ValueError` where it is, or a price in it is, infinite or not a number."""
    if isinstance(value, float | Decimal) and not math.isfinite(value):
        raise ValueError(f"Expected a finite number, got `{value}`")
    for part in value if isinstance(value, tuple) else ():
        for inner in msgspec.structs.astuple(part) if isinstance(part, PriceOverride) else ():
            _finite(inner)
    return value


def _struct_of(kind: Any) -> Any:
    """Return the struct class in `kind` (itself or one side of `X | None`), or None."""
    if isinstance(kind, type) and issubclass(kind, Struct):
        return kind
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return next((found for part in typing.get_args(kind) if (found := _struct_of(part))), None)
    return None


def _widened(value: object, kind: Any) -> object:
    """A single string where a list of strings is meant is that list (`model = "m"`); floats become exact Decimals."""
    if isinstance(value, str) and typing.get_origin(kind) is tuple:
        return [value]
    if isinstance(value, float) and "Decimal" in str(kind):
        return repr(value)
    if isinstance(value, list) and kind == tuple[PriceOverride, ...]:
        return [
            {k: repr(v) if isinstance(v, float) else v for k, v in item.items()} if isinstance(item, dict) else item
            for item in value
        ]
    return value


def _unknown(key: str, where: str, known: list[str], file: str | None) -> Problem:
    """Name the unknown key and the known one it is nearest to."""
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(sorted(known))}"
    return Problem(message="is not a field of a job", file=file, field=where, hint=hint, code="unknown-field")


def _contradictions(job: Job, file: str | None) -> list[Problem]:
    """Report values that are right alone and wrong together."""
    found = []
    if not re.fullmatch(r"[^\W_][\w.-]*", job.name):
        hint = "letters, digits, `-`, `_` and `.`, beginning with a letter or digit"
        found.append(Problem(message="is used as a folder's name", file=file, field="name", hint=hint))
    if not job.endpoint.base_url.startswith(("http://", "https://")):
        found.append(Problem(message="must begin with http:// or https://", file=file, field="endpoint.base_url"))
    if job.schedule.cron and job.schedule.every_s:
        found.append(Problem(message="give `cron` or `every_s`, not both", file=file, field="schedule"))
    if job.limits.max_cost_usd is not None and job.limits.max_cost_usd <= 0:
        found.append(Problem(message="must be more than 0", file=file, field="limits.max_cost_usd"))
    models = job.request.model
    found.extend(
        Problem(
            message=f"{model!r} is there twice",
            file=file,
            field=f"request.model[{place}]",
            hint="to ask it several times, set `request.repeat`",
        )
        for place, model in enumerate(models)
        if model in models[:place]
    )
    if job.scoring.stop_when is not None:
        found.extend(_stopping_contradictions(job, job.scoring.stop_when, file))
    reserved = {"model", "messages", "stream"} & set(job.request.params)
    found.extend(
        Problem(message="has a place of its own", file=file, field=f"request.params.{key}", hint=f"use request.{key}")
        for key in sorted(reserved)
    )
    return found


def _stopping_contradictions(job: Job, rule: StopWhen, file: str | None) -> list[Problem]:
    """Report what keeps a run from stopping once the answer is known."""
    found = []
    if rule.ci_half_width is None and rule.decided_against is None:
        hint = "stop_when = { ci_half_width = 0.01 } or { decided_against = RUN }"
        found.append(Problem(message="says nothing to stop for", file=file, field="scoring.stop_when", hint=hint))
    if not 0 < rule.alpha < 1:
        found.append(Problem(message="must be more than 0 and less than 1", file=file, field="scoring.stop_when.alpha"))
    if job.request.mode == "batches":
        message = "needs answers one by one, and a batch gives all of its own at once"
        found.append(Problem(message=message, file=file, field="scoring.stop_when", hint='set request.mode = "messages"'))
    if job.engine.workers > 1 or job.engine.kind != "local":
        message = "needs one process that sees every answer"
        found.append(Problem(message=message, file=file, field="scoring.stop_when", hint="set engine.workers = 1"))
    return found
