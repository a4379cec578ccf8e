"""The time figures of runs → charts as inline SVG: Vega-Lite drawn by `vl-convert`, where `batchrun[report]` is installed.

The specifications are plain Vega-Lite JSON, drawn to SVG while the page is written: a page needs no script of a library and
no network. Colours are the page's CSS variables, so that light, dark and paper need one drawing. No text of a dataset or
an endpoint goes into a drawing; legends are the page's own. Without the extra the page draws the same bars by a template of
its own. The drawing engine takes 0.6 s to start and 30 ms a chart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise
from math import log
from typing import Any, Final

import msgspec
from msgspec import Struct

from batchrun.report.words import milliseconds

SERIES: Final = 6
"""How many models are told apart by colour; a chart of more shows the first ones."""
WHAT_TO_INSTALL: Final = 'pip install "batchrun[report]"'

_COLOURS: Final = {f"#0000{n:02x}": f"var(--series-{n})" for n in range(1, SERIES + 1)} | {
    "#000010": "var(--muted)",
    "#000011": "var(--line)",
    "#000012": "var(--bad)",
    "#000013": "var(--warn)",
}
_FIRST: Final = next(iter(_COLOURS))
_AXIS, _GRID, _BAD, _WARN = list(_COLOURS)[SERIES:]
_SIZE: Final = re.compile(r'<svg ([^>]*?)width="[\d.]+" height="[\d.]+" ')
_FEWEST_BINS: Final = 2


class Bar(Struct, frozen=True, kw_only=True):
    """One bar of the simple drawing: where it begins and ends, of 1000, and how high it is, of 100."""

    left: float
    width: float
    height: float


class Chart(Struct, frozen=True, kw_only=True):
    """One drawing: Vega's SVG, or else bars by series for the page's own template, which writes `axis` and `peak` beside them."""

    title: str
    summary: str
    axis: tuple[str, ...]
    peak: str
    series: tuple[int, ...]
    bars: tuple[tuple[Bar, ...], ...]
    spec: dict[str, Any]
    svg: str | None = None
    wide: bool = False


def histograms(models: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Return how first-token and reply times are spread, all models in one chart."""
    charts = []
    for key, title in (("ttft_ms", "Time to first token"), ("latency_ms", "Time to the whole reply")):
        series = [(number, model.get("histograms", {}).get(key, [])) for number, model in enumerate(models[:SERIES], 1)]
        series = [(number, bars) for number, bars in series if len(bars) >= _FEWEST_BINS]
        if series:
            charts.append(_histogram(title, series))
    return charts


def timelines(sessions: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Return calls a second, what was refused, and the limit of calls in flight, over all sessions end to end."""
    bins, steps, start = [], [], 0.0
    for session in sessions:
        width = session["timeline_width_s"]
        bins += [(start + n * width, width, one) for n, one in enumerate(session["timeline"])]
        changes = [(start + change["at_s"], change["limit"]) for change in session["concurrency"]]
        start += session["wall_s"]
        steps += [*changes, (start, changes[-1][1])] if changes else []
    if len(bins) < _FEWEST_BINS:
        return []
    charts = [_calls(bins)]
    if any(one["refused"] or one["faults"] for _, _, one in bins):
        charts.append(_refusals(bins))
    if len(steps) >= _FEWEST_BINS:
        charts.append(_concurrency(steps, start))
    return charts


def trend(points: Sequence[tuple[float, float | None, float | None]]) -> Chart:
    """Return shares with their intervals, one run after the other, the oldest first."""
    values = [
        {"run": number, "share": share, "low": share if low is None else low, "high": share if high is None else high}
        for number, (share, low, high) in enumerate(points, 1)
    ]
    peak = max(share for share, _, _ in points) or 1.0
    width = 1000 / len(points)
    bars = tuple(
        Bar(left=round(n * width, 1), width=round(width, 1), height=round(100 * share / peak, 1))
        for n, (share, _, _) in enumerate(points)
    )
    ticks = list(range(1, len(points) + 1, 1 + (len(points) - 1) // 12))  # whole numbers, at most 12 of them
    runs = {"field": "run", "type": "quantitative", "scale": {"nice": False, "zero": False, "padding": 8}}
    shares = {"type": "quantitative", "scale": {"zero": False, "nice": True}}
    line = {"type": "line", "strokeWidth": 2, "color": _FIRST, "point": {"color": _FIRST, "size": 28, "filled": True}}
    spec = _spec(values, {}, {}, 900, 170)
    del spec["mark"], spec["encoding"]
    spec["layer"] = [
        {
            "mark": {"type": "area", "color": _FIRST, "opacity": 0.18},
            "encoding": {
                "x": {**runs, "axis": {"title": "runs, oldest first", "values": ticks, "format": "d"}},
                "y": {**shares, "field": "low", "axis": {"title": "accuracy", "format": ".0%", "tickCount": 4}},
                "y2": {"field": "high"},
            },
        },
        {"mark": line, "encoding": {"x": runs, "y": {**shares, "field": "share"}}},
    ]
    return Chart(
        title="Accuracy with its interval",
        summary=f"Accuracy of {len(points):,} runs, from {points[0][0]:.1%} to {points[-1][0]:.1%}.",
        axis=("oldest", "latest"),
        peak=f"highest {peak:.1%}",
        series=(1,),
        bars=(bars,),
        spec=spec,
        wide=True,
    )


def drawn(charts: Sequence[Chart]) -> list[Chart]:
    """Return the charts with Vega's drawing in them, or as they are where `vl-convert` is not installed."""
    if not charts or not can_draw():
        return list(charts)
    import vl_convert  # noqa: PLC0415 - an extra, and 0.6 s

    return [msgspec.structs.replace(chart, svg=_themed(vl_convert.vegalite_to_svg(chart.spec))) for chart in charts]


@cache
def can_draw() -> bool:
    """Tell whether the charting library is installed."""
    from importlib.util import find_spec  # noqa: PLC0415 - asked once

    return find_spec("vl_convert") is not None


def _themed(svg: str) -> str:
    """Return an SVG in the page's colours, that takes the width it is given."""
    for drawn_as, colour in _COLOURS.items():
        svg = svg.replace(drawn_as, colour)
    return _SIZE.sub(r'<svg aria-hidden="true" focusable="false" \1', svg, count=1)


def _histogram(title: str, series: list[tuple[int, list[Any]]]) -> Chart:
    """Return one distribution on a logarithmic axis, each series as shares of its rows."""
    lowest = min(bars[0][0] for _, bars in series)
    highest = max(bars[-1][1] for _, bars in series)
    values = []
    drawn_bars = []
    for number, bars in series:
        total = sum(count for _, _, count in bars)
        values += [{"from": low, "to": high, "share": n / total, "series": number} for low, high, n in bars]
        peak = max(count for _, _, count in bars)
        drawn_bars.append(tuple(_bar((low, high), n / peak, (lowest, highest)) for low, high, n in bars if n))
    span = f"{milliseconds(lowest)} to {milliseconds(highest)}"
    single = len(series) == 1
    mark = {"type": "bar", "binSpacing": 1, "cornerRadius": 1} if single else {"type": "bar", "binSpacing": 0, "opacity": 0.55}
    time_axis = {
        "title": "milliseconds, logarithmic",
        "format": "~s",
        "tickCount": 6,
        "labelOverlap": True,
    }
    scale = {"type": "log", "domain": [lowest, highest], "nice": False}
    encoding = {
        "x": {"field": "from", "type": "quantitative", "scale": scale, "axis": time_axis, "bin": {"binned": True}},
        "x2": {"field": "to"},
        "y": {
            "field": "share",
            "type": "quantitative",
            "stack": None,
            "axis": {"title": "rows", "format": ".0%", "tickCount": 4},
        },
        "color": _colour([number for number, _ in series]),
    }
    return Chart(
        title=title,
        summary=f"Histogram of {title.lower()}, from {span}; the table below has the percentiles.",
        peak=f"highest bar {max(n / sum(c for *_, c in bars) for _, bars in series for *_, n in bars):.0%} of rows",
        axis=(milliseconds(lowest), milliseconds((lowest * highest) ** 0.5), milliseconds(highest)),
        series=tuple(number for number, _ in series),
        bars=tuple(drawn_bars),
        spec=_spec(values, mark, encoding, 430),
    )


def _bar(ends: tuple[float, float], height: float, axis: tuple[float, float]) -> Bar:
    """Return a bar on a logarithmic axis."""
    whole = log(axis[1] / axis[0]) or 1.0
    left, right = (1000 * log(end / axis[0]) / whole for end in ends)
    return Bar(left=round(left, 1), width=round(right - left, 1), height=round(100 * height, 1))


def _calls(bins: list[tuple[float, float, Any]]) -> Chart:
    """Return calls a second over time."""
    rates = [one["sent"] / width for _, width, one in bins]
    values = [{"at": at, "to": at + width, "rate": rate, "series": 1} for (at, width, _), rate in zip(bins, rates, strict=True)]
    peak = max(rates) or 1.0
    return Chart(
        title="Calls a second",
        summary=f"Calls sent a second over {milliseconds(_end(bins) * 1000)}, at most {max(rates):,.1f}.",
        axis=("0 s", milliseconds(_end(bins) * 1000)),
        peak=f"highest {max(rates):,.1f}",
        series=(1,),
        bars=(tuple(_span(at, width, rate / peak, bins) for (at, width, _), rate in zip(bins, rates, strict=True)),),
        spec=_spec(values, {"type": "bar", "binSpacing": 0}, _over_time("rate", "calls / s", [1]), 900, 110),
        wide=True,
    )


def _refusals(bins: list[tuple[float, float, Any]]) -> Chart:
    """Return refused and failed attempts over time, one upon the other."""
    kinds = (("refused", _BAD), ("faults", _WARN))
    values = [
        {"at": at, "to": at + width, "attempts": one[kind], "series": kind}
        for at, width, one in bins
        for kind, _ in kinds
        if one[kind]
    ]
    peak = max(one["refused"] + one["faults"] for _, _, one in bins)
    encoding = _over_time("attempts", "attempts", [])
    encoding["color"] = {
        "field": "series",
        "type": "nominal",
        "legend": None,
        "scale": {"domain": [kind for kind, _ in kinds], "range": [colour for _, colour in kinds]},
    }
    encoding["x"]["scale"] = {"domain": [0, _end(bins)], "nice": False}
    refused, faults = (sum(one[kind] for _, _, one in bins) for kind, _ in kinds)
    return Chart(
        title="Refused (429, 529) and broken attempts",
        summary=f"{refused:,} attempts were refused and {faults:,} broke over time.",
        axis=("0 s", milliseconds(_end(bins) * 1000)),
        peak=f"highest {peak:,.0f} attempts",
        series=(0,),
        bars=(tuple(_span(at, width, (one["refused"] + one["faults"]) / peak, bins) for at, width, one in bins),),
        spec=_spec(values, {"type": "bar", "binSpacing": 0}, encoding, 900, 80),
        wide=True,
    )


def _concurrency(steps: list[tuple[float, int]], end: float) -> Chart:
    """Return the limit of calls in flight over time."""
    peak = max(limit for _, limit in steps) or 1
    least = min(limit for _, limit in steps)
    lasting = [(at, until - at, limit) for (at, limit), (until, _) in pairwise(steps)]
    bins = [(0.0, end, None)]
    encoding = _over_time("limit", "calls in flight", [1])
    del encoding["x2"], encoding["x"]["bin"]
    mark = {"type": "line", "interpolate": "step-after", "strokeWidth": 2}
    return Chart(
        title="Limit of calls in flight",
        summary=f"The limit stayed at {peak:,} calls."
        if least == peak
        else f"The limit moved between {least:,} and {peak:,} calls.",
        axis=("0 s", milliseconds(end * 1000)),
        peak=f"highest {peak:,}",
        series=(1,),
        bars=(tuple(_span(at, width, limit / peak, bins) for at, width, limit in lasting if width > 0),),
        spec=_spec([{"at": at, "limit": limit, "series": 1} for at, limit in steps], mark, encoding, 900, 80),
        wide=True,
    )


def _span(at: float, width: float, height: float, bins: Sequence[tuple[float, float, Any]]) -> Bar:
    """Return a bar on the axis of time."""
    end = _end(bins) or 1.0
    return Bar(left=round(1000 * at / end, 1), width=round(1000 * width / end, 1), height=round(100 * height, 1))


def _end(bins: Sequence[tuple[float, float, Any]]) -> float:
    return bins[-1][0] + bins[-1][1]


def _over_time(field: str, title: str, series: list[int]) -> dict[str, Any]:
    """Return the encoding of something over the seconds of the run."""
    axis = {"title": "seconds", "tickCount": 8, "labelOverlap": True}
    return {
        "x": {"field": "at", "type": "quantitative", "axis": axis, "bin": {"binned": True}, "scale": {"nice": False}},
        "x2": {"field": "to"},
        "y": {"field": field, "type": "quantitative", "axis": {"title": title, "tickCount": 3}},
        "color": _colour(series),
    }


def _colour(series: list[int]) -> dict[str, Any]:
    """Return the encoding of which series it is, by the page's colours."""
    scale = {"domain": series, "range": [list(_COLOURS)[number - 1] for number in series]}
    return {"field": "series", "type": "nominal", "legend": None, "scale": scale}


def _spec(
    values: list[dict[str, Any]], mark: dict[str, Any], encoding: dict[str, Any], width: int, height: int = 150
) -> dict[str, Any]:
    """Return a whole Vega-Lite specification, quiet enough to stand beside text."""
    axis = {
        "labelColor": _AXIS,
        "titleColor": _AXIS,
        "gridColor": _GRID,
        "domainColor": _GRID,
        "tickColor": _GRID,
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "labelFont": "system-ui, sans-serif",
        "titleFont": "system-ui, sans-serif",
        "titlePadding": 6,
    }
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "width": width,
        "height": height,
        "autosize": {"type": "fit", "contains": "padding"},
        "padding": 2,
        "data": {"values": values},
        "mark": mark,
        "encoding": encoding,
        "config": {"background": None, "aria": False, "view": {"stroke": None}, "axis": axis, "axisX": {"grid": False}},
    }
