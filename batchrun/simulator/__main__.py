"""The child of `process.start`: an order on standard input, the address on standard output, until the input closes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from threading import Thread

import msgspec

from batchrun.simulator.answers import open_answers
from batchrun.simulator.process import Order
from batchrun.simulator.server import serve


async def obey(order: Order) -> None:
    """Serve until standard input is closed."""
    answers = None if order.answers is None else open_answers(Path(order.answers))
    log = None if order.access_log is None else Path(order.access_log)
    async with serve(order.spec, answers, host=order.host, port=order.port, access_log=log) as server:
        try:
            os.write(1, f"{server.base_url}\n".encode())
        except BrokenPipeError:
            return  # who gave the order has ended since
        closed, loop = asyncio.Event(), asyncio.get_running_loop()
        Thread(target=_watch, args=(loop, closed), daemon=True).start()
        await closed.wait()


def _watch(loop: asyncio.AbstractEventLoop, closed: asyncio.Event) -> None:
    """Read standard input to its end; past Python's buffer, whose lock would outlive this thread."""
    while os.read(0, 4096):
        pass
    loop.call_soon_threadsafe(closed.set)


def main() -> None:
    """Read the order and obey it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when this ends
    asyncio.run(obey(msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)))


if __name__ == "__main__":
    main()
