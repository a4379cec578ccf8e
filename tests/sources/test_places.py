"""Datasets on another machine: read through one door, fetched once, broken transfers never a short dataset."""

import contextlib
import gzip
import hashlib
import http.server
import io
import json
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from batchrun.errors import StorageError, UsageError
from batchrun.sources import open_dataset, places
from batchrun.sources.check import check_dataset
from batchrun.sources.places import suffix


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves the files of one folder and counts how often each is asked for."""

    folder: Path
    asked: list[str]

    def do_GET(self) -> None:
        """Answer with the file, or 404."""
        self.asked.append(self.path)
        path = self.folder / self.path.partition("?")[0].strip("/")
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@contextlib.contextmanager
def served(folder: Path) -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []
    handler = type("Bound", (Handler,), {"folder": folder, "asked": asked})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join(10)


def test_a_web_address_is_fetched_once_for_all_passes(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"prompt": f"p {n}"}) + "\n" for n in range(50)))
    pq.write_table(pa.table({"prompt": ["x y", "z w"]}), tmp_path / "b.parquet")
    with served(tmp_path) as (base, asked):
        dataset = open_dataset(f"{base}/a.jsonl?download=true")
        assert check_dataset(dataset).ok
        assert len(list(dataset.samples(10))) == 40
        assert dataset.digest() == open_dataset(str(tmp_path / "a.jsonl")).digest()
        assert asked == ["/a.jsonl?download=true"]
        assert len(list(open_dataset(f"{base}/b.parquet").samples())) == 2


def test_a_signed_address_is_asked_whole_and_named_without_what_opens_it(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "fine"}\n{"prompt": 5}\n')
    with served(tmp_path) as (base, asked):
        report = check_dataset(open_dataset(f"{base}/a.jsonl?X-Amz-Signature=opens"))
        assert asked == ["/a.jsonl?X-Amz-Signature=opens"]
        assert [problem.file for problem in report.problems] == [f"{base}/a.jsonl"]


def test_an_address_with_a_password_is_refused_without_saying_it() -> None:
    with pytest.raises(UsageError, match=r"^https://h\.example/a\.jsonl: takes no name and password") as caught:
        open_dataset("https://me:opens@h.example/a.jsonl?sig=opens")
    assert "opens" not in str(caught.value)


class Bucket:
    """A stand-in for the door to buckets: one folder, whose every read is counted as a request would be."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reads: list[int] = []

    def glob(self, location: str) -> list[str]:
        """Find the one file."""
        return [location]

    def size(self, location: str) -> int:
        """Return the file's size."""
        return (self.folder / location.rpartition("/")[2]).stat().st_size

    def open_input(self, location: str) -> io.BytesIO:
        """Open the file."""
        reads = self.reads

        class Counted(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                reads.append(size or -1)
                return super().read(size)

        return Counted((self.folder / location.rpartition("/")[2]).read_bytes())


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.parquet"])
def test_a_bucket_is_asked_seldom_and_for_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    prompts = [random.Random(n).randbytes(600).hex() for n in range(2000)]
    content = "".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts).encode()
    if name == "a.parquet":
        pq.write_table(pa.table({"prompt": prompts}), tmp_path / name, use_dictionary=False)
    else:
        packed = {"a.jsonl": content, "a.jsonl.gz": gzip.compress(content), "a.jsonl.zst": zstandard.compress(content)}
        (tmp_path / name).write_bytes(packed[name])
    bucket = Bucket(tmp_path)
    monkeypatch.setattr(places, "_remote", lambda: bucket)
    dataset = open_dataset(f"s3://bucket/{name}", format="batchrun")
    bucket.reads.clear()
    assert check_dataset(dataset, hashing=True).ok
    assert len(bucket.reads) < 12
    assert dataset.digest() == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    assert [sample.index for sample in dataset.samples(done=bytes([1]) * 1990)] == list(range(1990, 2000))


def test_an_address_without_a_file_is_a_storage_error(tmp_path: Path) -> None:
    with served(tmp_path) as (base, _), pytest.raises(StorageError, match="404"):
        open_dataset(f"{base}/none.jsonl")


def test_a_scheme_nobody_knows_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="ftp"):
        open_dataset("ftp://example.org/a.jsonl")


def test_a_file_address_is_the_local_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "x"}\n')
    assert open_dataset(f"file://{tmp_path}/a.jsonl").files == (f"{tmp_path}/a.jsonl",)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.JSONL.gz", ".jsonl"),
        ("s3://b/x.parquet", ".parquet"),
        ("https://h/a.csv?x=y.z", ".csv"),
        ("a.ndjson.zst", ".ndjson"),
        ("a", ""),
    ],
)
def test_the_ending_that_tells_the_kind(name: str, kind: str) -> None:
    assert suffix(name) == kind
