"""A range of a run's rows → its part of the run's files, and the ledger that counts it.

A range is finished by whoever has the journal, the dataset and the order at hand: this process, another one, a Ray
task. The rows land in two files of the scratch folder, as Arrow batches and as JUnit's test cases; who puts the run together
copies them one after another in input order. A range can be finished again at will, with the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from itertools import takewhile
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import pyarrow as pa
from msgspec import Struct

from batchrun.finish.batch import BATCH_ROWS, Finisher
from batchrun.finish.ledger import Ledger
from batchrun.job import Job
from batchrun.pricing.book import PriceBook, open_book
from batchrun.records import Sample
from batchrun.report.junit import cases
from batchrun.scoring import open_scorer
from batchrun.sources import open_dataset
from batchrun.sources.bad_rows import BadRows, Blocks
from batchrun.storage.folder import RunFolder
from batchrun.storage.index import JournalIndex
from batchrun.storage.price_list import PriceList
from batchrun.storage.results import SCHEMA, to_batches
from batchrun.storage.trouble import translated

MOST_ROWS: Final = 1 << 16
RANGES_A_WORKER: Final = 4

Samples = Callable[[int], Iterator[Sample]]
"""The samples of a dataset whose index is at least so much, in order."""


class Range(NamedTuple):
    """The rows of the dataset with an index from `start` to before `stop` (None: to the end); `number` counts the ranges."""

    number: int
    start: int
    stop: int | None


class Order(Struct, frozen=True, kw_only=True):
    """What someone else must know to finish ranges of a run. It is sent, and never written."""

    job: Job
    folder: str
    scratch: str
    price_text: str | None
    bad_rows: Blocks

    def __repr__(self) -> str:
        """Show nothing of what it holds: a job may name secrets."""
        return f"Order(folder={self.folder!r}, …)"


def encode_order(order: Order) -> bytes:
    """Return the order as bytes."""
    return msgspec.msgpack.encode(order)


def decode_order(content: bytes) -> Order:
    """Return the order that `encode_order` wrote."""
    return msgspec.msgpack.decode(content, type=Order, strict=False)


class Part(Struct, frozen=True, kw_only=True):
    """A finished range: what is counted of it, and the models whose prices were asked for."""

    ledger: Ledger
    models: tuple[str, ...]


class Files:
    """The two files of one part."""

    def __init__(self, scratch: Path, rows: Range) -> None:
        """Name them."""
        self.batches = scratch / f".{rows.number:06d}.arrow"
        self.cases = scratch / f".{rows.number:06d}.xml"

    def read(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows. Raises `StorageError`."""
        with translated(self.batches, "read"), pa.OSFile(str(self.batches), "rb") as file, pa.ipc.open_file(file) as reader:
            for place in range(reader.num_record_batches):
                yield reader.get_batch(place)

    def remove(self) -> None:
        """Give the room back."""
        self.batches.unlink(missing_ok=True)
        self.cases.unlink(missing_ok=True)


def cut(job: Job, last: int, *, workers: int, direct: bool) -> list[Range]:
    """Cut the rows up to the one of ordinal `last` into ranges, all of one size, for so many workers.

    Where rows can be begun with anywhere (`direct`) they are small, so that all workers end together. Their size is a
    whole number of batches, so that the files of a run have the same bytes as those that one process writes.
    """
    calls = len(job.request.model) * job.request.repeat
    rows = last // calls + 1
    batch = -(-BATCH_ROWS // calls)
    wanted = max(1, -(-rows // (workers * (RANGES_A_WORKER if direct else 1))))
    size = min(-(-wanted // batch), max(1, MOST_ROWS // BATCH_ROWS)) * batch
    starts = range(0, rows, size)
    return [Range(number, start, start + size if start + size < rows else None) for number, start in enumerate(starts)]


class RangeFinisher:
    """Finishes ranges of one run; a context manager that holds its journal open."""

    def __init__(self, job: Job, index: JournalIndex, samples: Samples, book: PriceBook, scratch: Path) -> None:
        """Read nothing yet."""
        self._job, self._samples, self._book, self._scratch = job, samples, book, scratch
        self._finisher = Finisher(job, index, open_scorer(job.scoring), book)
        self.last = index.last  # the highest ordinal with a record

    def finish(self, rows: Range) -> Part:
        """Write the files of a range and count its rows. Raises `StorageError`, `DatasetError`."""
        ledger = Ledger(self._job, self._book, part=True)
        files = Files(self._scratch, rows)
        samples = self._samples(rows.start)
        if rows.stop is not None:
            stop = rows.stop
            samples = takewhile(lambda sample: sample.index < stop, samples)
        with ExitStack() as stack:
            stack.enter_context(translated(files.batches))
            options = pa.ipc.IpcWriteOptions(compression="lz4")
            batches = stack.enter_context(pa.ipc.new_file(str(files.batches), SCHEMA, options=options))
            text = stack.enter_context(files.cases.open("wb"))
            for batch in self._finisher.batches(samples, beyond=ledger.known is not None):
                ledger.add(batch)
                for columns in to_batches(batch.columns):
                    batches.write_batch(columns)
                text.write(cases(batch.columns).encode())
        return Part(ledger=ledger, models=self._book.asked)


class OrderedFinisher:
    """A `RangeFinisher` of an order, in a process that has nothing of the run open yet."""

    def __init__(self, order: Order) -> None:
        """Open the journal and the dataset."""
        job = order.job
        dataset = open_dataset(job.dataset, format=job.format, columns=job.columns, select=job.select, on_bad_row=job.on_bad_row)
        dataset.set_bad_rows(BadRows(order.bad_rows))
        self._index = RunFolder(Path(order.folder)).open_index(seal=False)
        book = open_book(job.prices, file_text=order.price_text, look_up=PriceList())
        self._finisher = RangeFinisher(job, self._index, dataset.samples, book, Path(order.scratch))

    def finish(self, rows: Range) -> Part:
        """See `RangeFinisher.finish`."""
        return self._finisher.finish(rows)

    def close(self) -> None:
        """Close the journal."""
        self._index.close()


Spread = Callable[[Order, Sequence[Range]], Generator[Part | None]]
"""Has ranges finished elsewhere and yields what each came to, in order; None for one that could not be finished there."""
