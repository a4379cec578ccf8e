"""Who is told how a run ended: a command or a webhook gets one JSON object, with retries and within a time.

`failure` is a run that ends with any other code than 0, unless a person or the system stopped it; `recovery` is a good run
after a failed one; `always` is every run. The object holds figures, gates and the reason; no credential, address or answer
of a model. Telling is never the run's business: what goes wrong with it is a sentence for stderr.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from batchrun.job import Notify
from batchrun.report.words import interval, money, percent

Event = Literal["failure", "recovery", "finished"]

STOPPED_BY_HAND: Final = frozenset({130, 143})
_CREDENTIALS: Final = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")
_MOST_REASON: Final = 1000


def event_of(exit_code: int, previous: int | None) -> Event:
    """Return what a run's end is, after a run that ended with `previous` (None: there was none)."""
    if exit_code not in {0, *STOPPED_BY_HAND}:
        return "failure"
    return "recovery" if exit_code == 0 and previous not in {0, None} else "finished"


def wanted(notify: Notify, event: Event) -> bool:
    """Say whether the job asks to hear of it, and names somebody to tell."""
    on = (notify.on,) if isinstance(notify.on, str) else notify.on
    return ("always" in on or event in on) and bool(notify.command or notify.webhook or notify.webhook_env)


def message(summary: Mapping[str, Any], event: Event, *, exit_code: int, reason: str | None) -> dict[str, Any]:
    """Return what is told: plain JSON values. `summary` may be that of a run that never began (`job` alone)."""
    told: dict[str, Any] = {
        "schema_version": 1,
        "event": event,
        "job": summary["job"],
        "run_id": summary.get("run_id"),
        "folder": summary.get("folder"),
        "simulated": bool(summary.get("simulated")),
        "started_at": summary.get("started_at"),
        "exit_code": exit_code,
        "reason": None if reason is None else reason[:_MOST_REASON],
        "gates": summary.get("gates") or [],
        "rows": summary.get("rows"),
        "cost_usd": (summary.get("cost") or {}).get("total"),
        "models": [
            {"model": model["model"], "accuracy": model["accuracy"], "cost_usd": model["cost"]["total_usd"]}
            for model in summary.get("models", [])
        ],
    }
    return {**told, "text": _text(told)}


def _text(told: Mapping[str, Any]) -> str:
    """Return the message in a few lines a person reads."""
    ended = {"failure": "failed", "recovery": "recovered"}.get(told["event"], "ended")
    kind = " (simulated)" if told["simulated"] else ""
    lines = [f"batchrun: {told['job']} {ended}{kind}, exit code {told['exit_code']}"]
    if told["reason"]:
        lines.append(told["reason"])
    lines.extend(
        f"{model['model']}: accuracy {interval(model['accuracy'])} of {model['accuracy']['n']:,} rows, {money(model['cost_usd'])}"
        for model in told["models"]
    )
    rows = told["rows"]
    if rows and rows["landed"] > rows["succeeded"]:
        lost = rows["landed"] - rows["succeeded"]
        lines.append(f"{lost:,} of {rows['landed']:,} rows have no answer ({percent(lost / rows['landed'])})")
    if told["folder"]:
        lines.append(f"results: {told['folder']}")
    return "\n".join(lines)


def tell(
    notify: Notify, told: Mapping[str, Any], *, environ: Mapping[str, str], sleep: Callable[[float], None] = time.sleep
) -> list[str]:
    """Tell the command and the webhook; return what went wrong, a sentence each, with no secret in it."""
    body = msgspec.json.encode(told)
    failed = []
    if notify.command and (trouble := _retried(lambda: _run(notify, body, environ), notify.retries, sleep)):
        failed.append(f"the notification command {notify.command[0]} {trouble}")
    if notify.webhook or notify.webhook_env:
        address = environ.get(notify.webhook_env or "") or notify.webhook
        if address is None:
            return [*failed, f"nobody was notified: {notify.webhook_env} is not set"]
        content = body if notify.style == "json" else msgspec.json.encode({"text": _for_slack(str(told["text"]))})
        if trouble := _retried(lambda: _post(address, content, notify.timeout_s), notify.retries, sleep):
            failed.append(f"the notification webhook failed: {trouble}")
    return failed


def _retried(attempt: Callable[[], tuple[str, bool] | None], retries: int, sleep: Callable[[float], None]) -> str | None:
    """Try until it works or there is no point; return what went wrong last."""
    trouble: tuple[str, bool] | None = None
    for number in range(retries + 1):
        trouble = attempt()
        if trouble is None:
            return None
        if not trouble[1] or number == retries:
            break
        sleep(min(30.0, 2.0**number))
    return trouble[0] if trouble is not None else None


def _run(notify: Notify, body: bytes, environ: Mapping[str, str]) -> tuple[str, bool] | None:
    """Run the command with the message on its standard input; return (what went wrong, whether to try again)."""
    import subprocess  # noqa: PLC0415 - only where a command is to be told

    kept = {name: value for name, value in environ.items() if name not in _CREDENTIALS}
    try:
        done = subprocess.run(  # noqa: S603 - the job's own command, as a list and without a shell
            list(notify.command), input=body, env=kept, stdout=subprocess.DEVNULL, timeout=notify.timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        return f"did not end within {notify.timeout_s:g} s", True
    except OSError as error:
        return f"cannot be started: {os.strerror(error.errno or 0)}", False
    return None if done.returncode == 0 else (f"ended with {done.returncode}", True)


def _post(address: str, body: bytes, timeout_s: float) -> tuple[str, bool] | None:
    from batchrun.transport.webhook import WebhookError, post_json  # noqa: PLC0415 - 10 ms, only where somebody is to be told

    try:
        post_json(address, body, timeout_s=timeout_s)
    except WebhookError as error:
        return str(error), error.again
    return None


def _for_slack(text: str) -> str:
    """Return text with the three characters that Slack reads as markup escaped."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def last_exit(codes: Sequence[int]) -> int | None:
    """Return how the last run ended that nobody stopped by hand, None where there is none. `codes`: oldest first."""
    return next((code for code in reversed(codes) if code not in STOPPED_BY_HAND), None)
