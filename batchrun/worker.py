"""One worker of a run that several processes share: ranges of rows in, journal segments of its own out.

It is the collecting half (`collect`) over a part of the dataset at a time: the same samples, requests, engine and
landing, with limits that are leased from the broker. It gives no results, writes nothing but its journal and reads
none: what has landed before is told to it. A second range is asked for while the first is still being read, so the calls
in flight never run dry in between; when all that it had has landed, in the bucket too where its journal is copied to
one, it waits for what others may leave behind. Who started it, and how, it does not know.

`python -m batchrun.worker FD` is one of these as a process, on a socket that its parent handed down.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from batchrun.collect import Calls, Plan
from batchrun.engine.budget import ENDLESS, MoneyBudget
from batchrun.engine.distributed.client import Client, Line
from batchrun.engine.distributed.messages import Rows, Stop
from batchrun.engine.distributed.socket_line import SocketLine
from batchrun.engine.judging import Wiring
from batchrun.engine.ports import Observer
from batchrun.errors import BatchrunError, UsageError
from batchrun.job import Job, Select
from batchrun.observe.observing import observing
from batchrun.pricing.book import open_book
from batchrun.records import Sample
from batchrun.sources import Dataset, open_dataset
from batchrun.sources.bad_rows import BadRows, Blocks
from batchrun.storage.folder import RunFolder
from batchrun.storage.home import Desk, Home
from batchrun.storage.in_flight import InFlight
from batchrun.storage.index import JournalIndex
from batchrun.storage.journal import Journal
from batchrun.storage.price_list import PriceList
from batchrun.transport import Credential, Transport, open_transport
from batchrun.transport.loop import run as run_loop

LOW_WATER: Final = 256  # rows left of a range when the next one is asked for
READ_COST: Final = 10  # of reading a row, in rows that are passed over from the beginning of a file
LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
NEEDED_VARIABLES: Final = frozenset(
    {"ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY", "SSL_CERT_FILE", "SSL_CERT_DIR"}
    | {name for word in ("http", "https", "all", "no") for name in (f"{word}_proxy", f"{word.upper()}_PROXY")}
)
STORAGE_VARIABLES: Final = ("AWS_", "AZURE_STORAGE_", "GOOGLE_APPLICATION_CREDENTIALS", "STORAGE_EMULATOR_HOST", "HF_TOKEN")
"""The beginnings of the names of variables that lead to buckets: see `storage.places`."""


class Order(Struct, frozen=True, kw_only=True):
    """What a worker is told at its start. It may hold a credential: it is sent, and never written."""

    name: str  # of its journal's segments, and to the broker
    workers: int
    job: Job
    home: Home
    environ: dict[str, str]
    price_text: str | None
    bad_rows: Blocks
    landed: bytes  # before it began: as the journal's index tells it
    stamp: list[list[str | int]] | None  # of the dataset's files, where they are on disks, and
    digest: str  # of their content
    retry_errors: bool

    def __repr__(self) -> str:
        """Show nothing of what it holds."""
        return f"Order(name={self.name!r}, …)"


def encode_order(order: Order) -> bytes:
    """Return the order as bytes."""
    return msgspec.msgpack.encode(order)


def decode_order(content: bytes) -> Order:
    """Return the order that `encode_order` wrote."""
    return msgspec.msgpack.decode(content, type=Order, strict=False)


async def work(order: Order, line: Line) -> None:
    """Collect what the broker at the other end of `line` hands out, until nothing is left or the run stops.

    What stops this worker stops the run, and is told to the broker. Raises only what is a bug.
    """
    client = Client(line, order.job.limits, workers=order.workers)
    async with client.connected():
        try:
            require_able(order, thorough=False)
            await _collect(order, client)
        except BatchrunError as error:
            await client.leave(Stop.of(error))
        except Exception as error:
            await client.leave(Stop(code=1, message=f"worker {order.name} failed: {type(error).__name__}: {error}"))
            raise
        else:
            await client.leave()


async def _collect(order: Order, client: Client) -> None:
    """Drive one engine after the other; a second one is needed only where rows came late."""
    job = order.job
    credential = Credential.from_environment(job.endpoint, order.environ)
    secrets = [credential.secret] if credential.secret else []
    async with _desk(order) as desk:
        with ExitStack() as stack:
            observer = stack.enter_context(observing(job, Path(order.home.folder).name, order.environ))
            observer.attach(job)
            share = Share(order, desk.folder, client, observer)
            journal = stack.enter_context(desk.folder.open_journal(desk.writer, secrets=secrets))
            transport = open_transport(job.endpoint, credential, connections=job.limits.concurrency, environ=order.environ)
            try:
                calls = share.calls(journal)
                in_flight = stack.enter_context(InFlight(journal)) if job.limits.max_cost_usd is not None else None
                wiring = share.wiring(calls, transport, credential, in_flight)
                while await client.wait_for_rows():
                    summary = await client.drive(client.engine(wiring), calls.requests(samples=share.samples()))
                    if summary.stopped is not None:
                        break
                    await asyncio.to_thread(journal.flush)
                    await asyncio.to_thread(desk.send)
            finally:
                await transport.aclose()


@asynccontextmanager
async def _desk(order: Order) -> AsyncIterator[Desk]:
    """Hold the place where this worker's journal goes; what is left to copy is copied beside the beats, which go on."""
    desk = await asyncio.to_thread(Desk, order.home, order.name)
    try:
        yield desk
    finally:
        await asyncio.to_thread(desk.close)


class Share:
    """The rows of one worker, and what it knows of those that have landed."""

    def __init__(self, order: Order, folder: RunFolder, client: Client, observer: Observer) -> None:
        """Open the dataset."""
        job = order.job
        self._order, self._client = order, client
        dataset = _dataset(order)
        dataset.set_bad_rows(BadRows(order.bad_rows))
        self._reader = RangeReader(dataset, direct=job.select == Select())
        self._index = JournalIndex(None)
        self._index.hear(order.landed)
        self._plan = Plan(
            job=job,
            dataset=dataset,
            folder=folder,
            book=open_book(job.prices, file_text=order.price_text, look_up=PriceList()),
            environ=order.environ,
            retry_errors=order.retry_errors,
            observer=observer,
        )

    def calls(self, journal: Journal) -> Calls:
        """Return the calls of this share, which land in `journal`."""
        return Calls(self._plan, self._index, journal)

    def wiring(self, calls: Calls, transport: Transport, credential: Credential, in_flight: InFlight | None) -> Wiring:
        """Return what an engine is made of: as for a run in one process, but for the money."""
        if self._order.job.limits.max_cost_usd is None:
            budget = MoneyBudget(ENDLESS, calls.worst_case, calls.price, allow_unpriced=True)
        else:
            budget = self._client.budget(calls.worst_case, calls.price, in_flight)
        return calls.wiring(transport, credential.redact, budget)

    def samples(self) -> Iterator[Sample]:
        """Yield the samples of the ranges at hand, and ask for the next one in time."""
        for rows in self._client.rows():
            if rows.landed is not None:
                self._index.hear(rows.landed)
            yield from self._of(rows)

    def _of(self, rows: Rows) -> Iterator[Sample]:
        """Yield the samples of one range; tell where the dataset ends before it does."""
        for place, sample in self._reader.read(rows.start, rows.stop):
            if rows.stop is not None and rows.stop - place <= LOW_WATER:
                self._client.look_ahead()
            yield sample
        if self._reader.ended and (rows.stop is None or self._reader.place < rows.stop):
            self._client.rows_end(self._reader.place)


class RangeReader:
    """Reads ranges of a dataset's chosen rows by their places; going forward costs what is passed over, and no more.

    `direct`: every row is chosen, so a place is a row's number, and reading may begin there where that is cheaper.
    Otherwise reading goes on from where it is, and begins anew only for a range that lies behind.
    """

    def __init__(self, dataset: Dataset, *, direct: bool) -> None:
        """Read nothing yet."""
        self._dataset, self._direct = dataset, direct
        self._samples: Iterator[Sample] | None = None
        self.place = 0  # of the next row
        self.ended = False

    def read(self, start: int, stop: int | None) -> Iterator[tuple[int, Sample]]:
        """Yield (place, sample) of the rows from `start` to before `stop`; fewer where the dataset ends."""
        samples = self._at(start)
        while stop is None or self.place < stop:
            sample = next(samples, None)
            if sample is None:
                self.ended, self._samples = True, None
                return
            place = self.place
            self.place += 1
            if place >= start:
                yield place, sample

    def _at(self, start: int) -> Iterator[Sample]:
        """Return the samples from `start` on, or from somewhere before it."""
        far = self._direct and (start - self.place) * READ_COST > start
        if self._samples is None or start < self.place or far:
            self.place = start if self._direct else 0
            self._samples = self._dataset.samples(self.place)
            self.ended = False
        return self._samples


def needed(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of an environment that a worker needs."""
    return {
        name: value
        for name, value in environ.items()
        if name in NEEDED_VARIABLES or name.startswith(("OTEL_", *STORAGE_VARIABLES))
    }


def of_storage(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of an environment that lead to buckets, which are looked for in a process's own."""
    return {name: value for name, value in environ.items() if name.startswith(STORAGE_VARIABLES)}


def require_able(order: Order, *, thorough: bool) -> None:
    """Raise `UsageError` where this machine cannot do its part of the run; `thorough`: also where its dataset is another one.

    A copy of the dataset is as good as the driver's own file: the same bytes under the same path.
    """
    order.home.require()
    if thorough:
        _require_endpoint(order.job.endpoint.base_url)
    if order.stamp is None:
        if thorough:
            _dataset(order)
        return
    here = socket.gethostname()
    hint = "put it in a folder that all machines share, under one path, or in a bucket (s3://…), and name that as `dataset`"
    try:
        dataset = _dataset(order)
    except UsageError as error:
        raise UsageError(f"{here} cannot read the dataset: {error}", hint=hint) from None
    stamp = dataset.stamp() or []
    same = [part[:2] for part in stamp] == [part[:2] for part in order.stamp]
    if same and thorough and stamp != order.stamp:
        same = dataset.digest() == order.digest
    if not same:
        raise UsageError(f"{order.job.dataset} is another dataset on {here}", hint=hint)


def _require_endpoint(base_url: str) -> None:
    """Raise `UsageError` where the endpoint is one of the driver's machine alone, as a simulated one is."""
    address = urlsplit(base_url)
    if address.hostname not in LOOPBACK:
        return
    try:
        socket.create_connection((address.hostname, address.port or {"https": 443}.get(address.scheme, 80)), timeout=3).close()
    except OSError:
        hint = "name an endpoint that all machines reach: a simulated one by `batchrun simulate --host 0.0.0.0`"
        raise UsageError(f"nothing answers at {base_url} on {socket.gethostname()}", hint=hint) from None


def _dataset(order: Order) -> Dataset:
    job = order.job
    return open_dataset(job.dataset, format=job.format, columns=job.columns, select=job.select, on_bad_row=job.on_bad_row)


async def _as_process(descriptor: int) -> None:
    """Be a worker on a socket that was handed down."""
    line = await SocketLine.connect(socket.socket(fileno=descriptor))
    order = decode_order(await line.receive())
    async with asyncio.TaskGroup() as group:
        listening = group.create_task(line.listen())
        try:
            with contextlib.suppress(ConnectionError):
                await work(order, line)
        finally:
            listening.cancel()


if __name__ == "__main__":
    run_loop(_as_process(int(sys.argv[1])))
