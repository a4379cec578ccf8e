"""Token counts of either meaning → `records.Usage`, whose kinds never overlap.

The Messages API counts cached input beside `input_tokens`; the chat form counts it inside `prompt_tokens`.
Which meaning holds is told by the names that arrived, not by the form around them: gateways put chat names
into Messages events. Counts in a stream are cumulative, so a later value replaces an earlier one, also with
a smaller one, and null replaces nothing. Never guesses a number: what was not told stays None.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from batchrun.records import Usage

_BEDROCK: Final = {
    "inputTokenCount": "input_tokens",
    "outputTokenCount": "output_tokens",
    "cacheReadInputTokenCount": "cache_read_input_tokens",
    "cacheWriteInputTokenCount": "cache_creation_input_tokens",
}
"""Amazon Bedrock's `invocationMetrics` on `message_stop` → the Messages API's names."""

_INCLUSIVE_READS: Final = ("prompt_tokens_details", "input_tokens_details")
_THINKING: Final = (
    ("output_tokens_details", "thinking_tokens"),
    ("output_tokens_details", "reasoning_tokens"),
    ("completion_tokens_details", "reasoning_tokens"),
)


_5M: Final = "ephemeral_5m_input_tokens"
_1H: Final = "ephemeral_1h_input_tokens"
_PLAIN: Final = frozenset(
    {
        "input_tokens",
        "output_tokens",
        "cache_read_input_tokens",
        "cache_creation_input_tokens",
        "cache_creation",
        "service_tier",
        "inference_geo",
    }
)
"""What the Messages API tells when no server tool, no thinking and no gateway has a part in the answer."""
_TOO_MANY: Final = 2**63

PlainUsage = tuple[int | None, int | None, int | None, int | None, int | None, int | None, str | None]
"""Input tokens, output tokens, cached input that was read, that was written (in all, for 5 minutes, for 1 hour), service tier."""


def merge_usage(into: dict[str, Any], later: object) -> None:
    """Lay a later report over earlier ones, in place; whatever is not an object, or null, changes nothing."""
    if isinstance(later, dict):
        if None in later.values():
            later = {key: value for key, value in later.items() if value is not None}
        into.update(later)


def from_bedrock(metrics: object) -> dict[str, Any]:
    """Return Bedrock's invocation metrics under the Messages API's names."""
    if not isinstance(metrics, Mapping):
        return {}
    return {ours: metrics[theirs] for theirs, ours in _BEDROCK.items() if theirs in metrics}


def split_usage(raw: Mapping[str, Any]) -> Usage:
    """Split one (merged) usage object into disjoint counts.

    A cache write of untold lifetime counts as 5m (contract 5). Where cached tokens are a part of the
    prompt's count they are taken out of it, unless they exceed it and so cannot be a part.
    """
    if _PLAIN.issuperset(raw) and (usual := _usual(raw)) is not None:
        return usual
    output = _first(raw, "output_tokens", "completion_tokens")
    read, write_5m, write_1h = _cache(raw)
    return Usage(
        input_tokens=_uncached_input(raw, (read or 0) + (write_5m or 0) + (write_1h or 0)),
        output_tokens=output,
        cache_read_tokens=read,
        cache_write_5m_tokens=write_5m,
        cache_write_1h_tokens=write_1h,
        thinking_tokens=next((n for outer, key in _THINKING if (n := count(_inner(raw, outer).get(key))) is not None), None),
        server_tool_use=_server_tools(raw),
        service_tier=tier if isinstance(tier := raw.get("service_tier"), str) else None,
    )


def _usual(raw: Mapping[str, Any]) -> Usage | None:
    """Return what the API itself sends, by the same rules in fewer steps; None where a value is not as it sends it."""
    get = raw.get
    tokens, output = get("input_tokens"), get("output_tokens")
    read, written, tier = get("cache_read_input_tokens"), get("cache_creation_input_tokens"), get("service_tier")
    lifetimes = get("cache_creation")
    told_5m, told_1h = (lifetimes.get(_5M), lifetimes.get(_1H)) if type(lifetimes) is dict else (None, None)
    for value in (tokens, output, read, written, told_5m, told_1h):
        if value is not None and (type(value) is not int or not 0 <= value < _TOO_MANY):
            return None
    return plain_usage((tokens, output, read, written, told_5m, told_1h, tier if isinstance(tier, str) else None))


def plain_usage(told: PlainUsage) -> Usage:
    """Return the split of a usage that tells what the API itself tells."""
    tokens, output, read, written, told_5m, told_1h, tier = told
    lifetimes = (told_5m or 0) + (told_1h or 0)
    if written is not None and written >= lifetimes:
        told_5m = (told_5m or 0) + written - lifetimes
    return Usage(
        input_tokens=tokens,
        output_tokens=output,
        cache_read_tokens=read,
        cache_write_5m_tokens=told_5m,
        cache_write_1h_tokens=told_1h,
        service_tier=tier,
    )


def count(value: object) -> int | None:
    """Return a token count from what a server calls one: an int, an integral float or digits; else None."""
    if isinstance(value, str) and value.strip().isdecimal() and len(value) <= 20:
        return int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _TOO_MANY:
        return value
    return None


def _first(raw: Mapping[str, Any], *names: str) -> int | None:
    """Return the first count told under one of `names`, a told 0 only if no other name tells more."""
    told = [n for name in names if (n := count(raw.get(name))) is not None]
    return next((n for n in told if n), told[0] if told else None)


def _inner(raw: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    inner = raw.get(name)
    return inner if isinstance(inner, Mapping) else {}


def _cache(raw: Mapping[str, Any]) -> tuple[int | None, int | None, int | None]:
    """Return (read, written for 5 minutes, written for 1 hour)."""
    details: dict[str, Any] = {}
    for name in _INCLUSIVE_READS:
        merge_usage(details, raw.get(name))
    read = _first({**details, **raw}, "cache_read_input_tokens", "cached_tokens", "prompt_cache_hit_tokens", "cache_read_tokens")
    written = _first(
        {**details, **raw},
        "cache_creation_input_tokens",
        "cache_write_tokens",
        "cache_creation_tokens",
        "cache_write_input_tokens",
    )
    lifetimes = _inner(raw, "cache_creation")
    write_5m, write_1h = count(lifetimes.get(_5M)), count(lifetimes.get(_1H))
    told = (write_5m or 0) + (write_1h or 0)
    if written is not None and written >= told:
        write_5m = (write_5m or 0) + written - told
    return read, write_5m, write_1h


def _uncached_input(raw: Mapping[str, Any], cached: int) -> int | None:
    """Return the input that no cache had a part in."""
    apart, whole = count(raw.get("input_tokens")), count(raw.get("prompt_tokens"))
    if whole is None and "input_tokens_details" in raw:
        apart, whole = None, apart
    if apart or whole is None:
        return apart
    return whole - cached if cached <= whole else whole


def _server_tools(raw: Mapping[str, Any]) -> dict[str, int] | None:
    """Return how often each server tool was used, by the API's own names."""
    told = {str(name): n for name, value in _inner(raw, "server_tool_use").items() if (n := count(value)) is not None}
    return told or None
