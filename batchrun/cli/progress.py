"""Live progress on stderr: a panel on a terminal, a plain line now and then without one.

It is handed snapshots of the engine's counters and turns them into text; it asks nothing of the run
and knows no endpoint. One repaint is a few string operations, four times a second.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from batchrun.cli.options import interactive
from batchrun.observe.log import why_paused
from batchrun.report.words import count, duration, money

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

    from batchrun.engine.telemetry import Progress

PLAIN_EVERY_S = 10.0
REPAINTS_A_SECOND = 4


class ProgressView:
    """Shows a run's snapshots while a `with` block lasts."""

    def __init__(self, title: str, *, quiet: bool, clock: Callable[[], float] = time.monotonic) -> None:
        """Prepare a panel or plain lines, by what stderr is."""
        self._title, self._quiet, self._clock = title, quiet, clock
        self._live: Live | None = None
        self._last = self._started = clock()

    def __enter__(self) -> Self:
        """Open the panel, where there is a terminal."""
        if not self._quiet and interactive():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), refresh_per_second=REPAINTS_A_SECOND, transient=True)
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Take the panel away: the table that follows says more."""
        if self._live is not None:
            self._live.stop()

    def show(self, progress: Progress, total: int | None) -> None:
        """Show the counters now, of `total` calls to make: at once on a terminal, every `PLAIN_EVERY_S` seconds as a line."""
        if self._quiet:
            return
        now = self._clock()
        if self._live is not None:
            self._live.update(self._panel(progress, total, now - self._started))
        elif now - self._last >= PLAIN_EVERY_S:
            self._last = now
            sys.stderr.write(f"{self._title}: {plain(progress, total, now - self._started)}\n")
            sys.stderr.flush()

    def _panel(self, now: Progress, total: int | None, elapsed_s: float) -> RenderableType:
        """Draw the bar and two lines of figures."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        head = Table.grid(padding=(0, 1), expand=False)
        of = f"/{total:,}" if total else ""
        share = f"{now.landed / total:4.0%}" if total else ""
        head.add_row(
            Text(self._title, style="bold"),
            ProgressBar(total=total or None, completed=now.landed, width=36, pulse=total is None),
            Text(f"{now.landed:,}{of} {share}", style="bold"),
            Text(left(now, total, elapsed_s), style="cyan"),
        )
        figures = Text("  ").join(Text(part, style=style) for part, style in _figures(now, elapsed_s) if part)
        return Group(head, figures)


def plain(now: Progress, total: int | None, elapsed_s: float) -> str:
    """Return the counters as one line of plain text."""
    of = f"/{total:,}" if total else ""
    figures = [part for part, _ in _figures(now, elapsed_s)]
    parts = [f"{now.landed:,}{of} done", *figures, left(now, total, elapsed_s)]
    return ", ".join(part for part in parts if part)


def left(now: Progress, total: int | None, elapsed_s: float) -> str:
    """Return how long the rest will take at the pace so far; nothing while that is a guess."""
    if not total or not now.landed or elapsed_s <= 0:
        return ""
    return f"{duration((total - now.landed) * elapsed_s / now.landed)} left"


def _figures(now: Progress, elapsed_s: float) -> list[tuple[str, str]]:
    """Return the figures below the bar, each with its style."""
    pace = now.landed / elapsed_s if elapsed_s > 0 else 0.0
    pause_s = now.paused_until - time.monotonic()
    return [
        (f"{now.errored:,} failed" if now.errored else "", "red"),
        (f"{now.retrying:,} retrying" if now.retrying else "", "yellow"),
        (f"{now.in_flight:,} in flight" + (f" in {now.batches:,} batches" if now.batches else ""), ""),
        (f"{pace:,.1f} calls/s", ""),
        (f"first token {now.ttft_ms:,.0f} ms" if now.ttft_ms is not None else "", ""),
        (f"{count(now.input_tokens)} in + {count(now.output_tokens)} out tokens", ""),
        (money(now.cost) if now.cost is not None else "", "green"),
        (f"{why_paused(outage=now.outage)} {duration(pause_s)}" if pause_s > 0 else "", "yellow"),
    ]
