"""Arrow's dates, times, time stamps and durations in, their text out, from the whole numbers that they are stored as.

Arrow makes values of nanoseconds with pandas alone, which need not be there, and stops at a moment that Python's classes
cannot hold, as other systems' infinity: so no value of theirs is made here but within their bounds, and nanoseconds are
written behind its text. It refuses to know which column the values are of.
"""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Callable
from typing import Any, Final

import pyarrow as pa

_EPOCH: Final = dt.datetime(1970, 1, 1)  # noqa: DTZ001 -- a time stamp without a zone has none
_MICROSECONDS: Final = {"s": 1_000_000, "ms": 1000, "us": 1}
_TO_MICROSECONDS: Final = len("2024-02-29T12:30:00.000000")


def stored(kind: Any) -> Any:
    """Return the type as which a column of this type can be viewed, its moments whole numbers wherever they are nested."""
    types = pa.types
    if types.is_struct(kind):
        return pa.struct([_stored_field(kind.field(i)) for i in range(kind.num_fields)])
    if types.is_map(kind):
        return pa.map_(_stored_field(kind.key_field), _stored_field(kind.item_field))
    if types.is_fixed_size_list(kind):
        return pa.list_(_stored_field(kind.value_field), kind.list_size)
    if types.is_list(kind) or types.is_large_list(kind):
        return (pa.list_ if types.is_list(kind) else pa.large_list)(_stored_field(kind.value_field))
    if not types.is_temporal(kind) or types.is_interval(kind):
        return kind
    return pa.int32() if kind.bit_width == pa.int32().bit_width else pa.int64()


def text_of(kind: Any, between: str = "T") -> Callable[[int], str] | None:
    """Return what makes text of the whole numbers of a temporal type, None for any other type.

    `between` stands between a day and its time. What Python cannot hold gets the text that Arrow has for it.
    """
    types = pa.types
    if types.is_timestamp(kind):
        zone = None if kind.tz is None else pa.lib.string_to_tzinfo(kind.tz)
        return _unless_too_large(_timestamp(kind.unit, zone, between), kind)
    if types.is_duration(kind):
        return _unless_too_large(_duration(kind.unit), kind)
    if types.is_time(kind):
        return _unless_too_large(lambda value: (_EPOCH + _span(value, kind.unit)[0]).time().isoformat(), kind)
    if types.is_date(kind):
        of_a_day = 1 if types.is_date32(kind) else 86_400_000
        return _unless_too_large(lambda value: (_EPOCH + dt.timedelta(value // of_a_day)).date().isoformat(), kind)
    return None


def _stored_field(field: Any) -> Any:
    """Return a nested field with its moments as whole numbers."""
    return field.with_type(stored(field.type))


def _span(value: int, unit: str) -> tuple[dt.timedelta, int]:
    """Return the time that so many units are, in whole microseconds, and the nanoseconds over."""
    if unit == "ns":
        micros, over = divmod(value, 1000)
        return dt.timedelta(microseconds=micros), over
    return dt.timedelta(microseconds=value * _MICROSECONDS[unit]), 0


def _timestamp(unit: str, zone: dt.tzinfo | None, between: str) -> Callable[[int], str]:
    """Return what writes the time stamps of one type in ISO 8601."""

    def text(value: int) -> str:
        span, over = _span(value, unit)
        moment = _EPOCH + span if zone is None else (_EPOCH + span).replace(tzinfo=dt.UTC).astimezone(zone)
        if not over:
            return moment.isoformat(between)
        whole = moment.isoformat(between, "microseconds")
        return f"{whole[:_TO_MICROSECONDS]}{over:03}{whole[_TO_MICROSECONDS:]}"

    return text


def _duration(unit: str) -> Callable[[int], str]:
    """Return what writes the durations of one type as Python does, the same in every unit."""

    def text(value: int) -> str:
        span, over = _span(value, unit)
        if not over:
            return str(span)
        return f"{span}{over:03}" if span.microseconds else f"{span}.000000{over:03}"

    return text


def _unless_too_large(text: Callable[[int], str], kind: Any) -> Callable[[int], str]:
    """Return what writes a value by `text`, or as Arrow does where it is outside of what Python can hold."""

    def bounded(value: int) -> str:
        try:
            return text(value)
        except OverflowError:
            return _as_arrow_says(value, kind)

    return bounded


def _as_arrow_says(value: int, kind: Any) -> str:
    """Return Arrow's text for a value, in UTC: in a zone it writes one that is too large for itself as some other moment."""
    zoned = pa.types.is_timestamp(kind) and kind.tz is not None
    plain = pa.timestamp(kind.unit) if zoned else kind
    held = value.to_bytes(plain.bit_width // 8, sys.byteorder, signed=True)
    said: str = pa.Array.from_buffers(plain, 1, [None, pa.py_buffer(held)]).cast(pa.string())[0].as_py()
    return f"{said}Z" if zoned and said[-1].isdigit() else said
