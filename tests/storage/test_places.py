"""Places: local, a bucket behind a server that speaks S3, the web; whole or not at all in each."""

from __future__ import annotations

import contextlib
import http.client
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import msgspec
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from batchrun.errors import MissingExtra, RunLocked, StorageError, UsageError
from batchrun.records import Attempt, Row
from batchrun.storage import places
from batchrun.storage.folder import RunFolder
from batchrun.storage.journal import Journal, JournalIndex
from batchrun.storage.lock import Owner
from batchrun.storage.mirror import Mirror, pull, spool_folder
from batchrun.storage.results import ResultsWriter

BUCKET_SERVER = """
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(*server.get_host_and_port(), flush=True)
input()
"""


class Door(BaseHTTPRequestHandler):
    """A door in front of the S3 server that turns some requests away: with a status, or by hanging up (0)."""

    protocol_version = "HTTP/1.1"
    behind: ClassVar[tuple[str, int]]
    refuse: ClassVar[list[int]] = []  # what the next requests that `matches` get
    refused: ClassVar[int] = 0
    matches: ClassVar[Callable[[str, str], bool]] = staticmethod(lambda _method, _path: True)

    def body(self) -> bytes:
        """Return the request's body, whichever way it is framed."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        content = b""
        while length := int(self.rfile.readline(), 16):
            content += self.rfile.read(length)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def forward(self) -> None:
        """Pass one request through, or not."""
        body = self.body()
        if Door.refuse and Door.matches(self.command, self.path):
            Door.refused += 1
            status = Door.refuse.pop(0)
            if status:
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()
            self.close_connection = True
            return
        connection = http.client.HTTPConnection(*self.behind, timeout=20)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in {"transfer-encoding", "expect"}}
        connection.request(self.command, self.path, body, {**headers, "Content-Length": str(len(body))})
        answer = connection.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in {"transfer-encoding", "connection", "content-length", "date", "server"}:
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        self.wfile.write(content)
        connection.close()

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = forward  # noqa: N815  # the names http.server looks for

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve `handler` on loopback; yield the address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join(10)


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    """Return the address of a door before an S3-speaking server with one empty bucket named `bucket`."""
    with subprocess.Popen(
        [sys.executable, "-c", BUCKET_SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdout is not None
        host, port = server.stdout.readline().split()
        Door.behind = (host, int(port))
        with serving(Door) as address:
            connection = http.client.HTTPConnection(host, int(port), timeout=20)
            connection.request("PUT", "/bucket")
            assert connection.getresponse().status == 200
            connection.close()
            yield address
        server.kill()


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[str]:
    """Return a folder of its own in the bucket, reached by the usual variables alone."""
    variables = {
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "key",
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    Door.refuse, Door.refused = [], 0
    Door.matches = staticmethod(lambda _method, _path: True)
    yield f"s3://bucket/{request.node.name.partition('[')[0]}"
    Door.refuse = []


def put(place: str, content: bytes) -> None:
    """Write `content` to `place`."""
    with places.open_output(place) as file:
        file.write(content)


def get(place: str) -> bytes:
    """Return what is at `place`."""
    with places.open_input(place) as file:
        return file.read()


@pytest.fixture(params=["local", "file", "bucket"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return a writable place of each kind."""
    if request.param == "bucket":
        return str(request.getfixturevalue("bucket"))
    return str(tmp_path) if request.param == "local" else f"file://{tmp_path}"


def test_what_is_written_is_read_wherever_it_is(root: str) -> None:
    place = places.join(root, "a", "rows.jsonl")
    assert not places.exists(place)
    put(place, b"one\ntwo\n")
    put(place, b"three\n")
    assert get(place) == b"three\n"
    assert places.exists(place)
    assert places.exists(places.join(root, "a"))
    assert places.size(place) == 6
    with places.open_input(place) as file:
        file.seek(2)
        assert file.read(3) == b"ree"
    places.remove(place)
    places.remove(place)
    assert not places.exists(place)
    with pytest.raises(StorageError, match=r"rows\.jsonl"):
        places.open_input(place)
    with pytest.raises(StorageError, match=r"rows\.jsonl"):
        places.size(place)


def test_globs_and_folders_are_listed_in_order(root: str) -> None:
    """A file is itself, a folder all its files, a pattern its matches; hidden ones and `_SUCCESS` are left out."""
    for name in ("d/b.parquet", "d/a.parquet", "d/c.jsonl", "d/deep/e.parquet", "d/.hidden.parquet", "d/_SUCCESS"):
        put(places.join(root, name), b"x")
    prefix = root.removeprefix("file://") if root.startswith("file") else root

    def names(pattern: str) -> list[str]:
        found = places.glob(places.join(root, pattern))
        return [place.removeprefix("file://").removeprefix(prefix + "/") for place in found]

    assert names("d/a.parquet") == ["d/a.parquet"]
    assert names("d") == names("d/") == ["d/a.parquet", "d/b.parquet", "d/c.jsonl", "d/deep/e.parquet"]
    assert names("d/*.parquet") == ["d/a.parquet", "d/b.parquet"]
    assert names("d/**/*.parquet") == ["d/a.parquet", "d/b.parquet", "d/deep/e.parquet"]
    assert names("d/[ab].*") == ["d/a.parquet", "d/b.parquet"]
    assert names("none") == names("none/*.x") == []
    assert get(places.glob(places.join(root, "d/?.jsonl"))[0]) == b"x"


def test_a_write_that_fails_shows_nothing(root: str) -> None:
    """Neither a new name nor a change to an old file, whatever was written before the failure."""
    place = places.join(root, "results.parquet")
    put(place, b"old")
    for target in (place, places.join(root, "new.parquet")):
        with pytest.raises(ZeroDivisionError), places.open_output(target) as file:
            file.write(b"x" * 100_000 + b"y" * (1 // 0))
    assert get(place) == b"old"
    assert [found.rpartition("/")[2] for found in places.glob(root)] == ["results.parquet"]


def test_parquet_is_read_from_a_bucket_by_row_group(bucket: str, tmp_path: Path, row: Callable[..., Row]) -> None:
    """Arrow reads what it needs of an object, through the same settings."""
    path = tmp_path / "results.parquet"
    with ResultsWriter(path, {}) as writer:
        writer.write([row(index) for index in range(100)])
    places.upload(path, places.join(bucket, "results.parquet"))
    system, name = places.filesystem(places.join(bucket, "results.parquet"))
    assert pq.read_table(name, filesystem=system, columns=["index"])["index"].to_pylist() == list(range(100))
    with places.open_input(places.join(bucket, "results.parquet")) as file:
        assert pq.ParquetFile(file).metadata.num_rows == 100


@pytest.mark.parametrize("status", [500, 503, 0])
def test_a_bucket_that_stumbles_is_asked_again(bucket: str, status: int) -> None:
    """Two server errors or broken connections in a row do not fail a read or a write."""
    place = places.join(bucket, f"rows-{status}.jsonl")
    Door.refuse = [status, status]
    put(place, b"x" * 1000)
    Door.refuse = [status, status]
    assert get(place) == b"x" * 1000
    assert Door.refused == 4


def test_an_upload_cut_for_good_shows_nothing(bucket: str) -> None:
    """Every part of a large object is refused: exit 4, and the name does not appear."""
    place = places.join(bucket, "large.bin")
    Door.matches = staticmethod(lambda method, path: method == "PUT" and "partNumber" in path)
    Door.refuse = [403] * 50
    with pytest.raises(StorageError, match=r"large\.bin: cannot write") as caught:
        put(place, b"x" * (12 << 20))
    assert caught.value.exit_code == 4
    Door.refuse = []
    assert not places.exists(place)


def test_an_object_cut_short_is_taken_back(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a place shows a part of what was sent, the part is removed and the error says so."""
    source, target = tmp_path / "source", places.join(bucket, "target")
    source.write_bytes(b"x" * 100)
    monkeypatch.setattr(places, "_copy", lambda read, write, _size: write.write(read.read(40)))
    with pytest.raises(StorageError, match="not taken whole"):
        places.upload(source, target)
    assert not places.exists(target)


def test_a_bucket_that_is_not_there_is_exit_4(bucket: str) -> None:
    del bucket
    with pytest.raises(StorageError):
        put("s3://no-such-bucket/x", b"x")
    with pytest.raises(StorageError):
        get("s3://no-such-bucket/x")


def test_a_local_place_that_cannot_be_written_is_exit_4(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError):
        put(str(tmp_path / "file" / "x"), b"x")
    with pytest.raises(StorageError, match="no such file"):
        places.size(str(tmp_path))


class Web(BaseHTTPRequestHandler):
    """A web server whose answers are cut, wrong or right, as the path says."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        """Answer by the path: /STATUS or /cut/N (the first N answers are cut short)."""
        Web.asked.append(self.path)
        kind, _, rest = self.path.partition("?")[0].strip("/").partition("/")
        status = int(kind) if kind.isdecimal() else 200
        self.send_response(status)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        cut = kind == "cut" and Web.asked.count(self.path) <= int(rest)
        self.wfile.write(b"x" * (10 if cut else 1000))

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the address of a web server."""
    monkeypatch.setattr(places, "_PAUSE_S", 0)
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    Web.asked = []
    with serving(Web) as address:
        yield address


def test_the_web_is_read_whole(web: str) -> None:
    """A body cut short is fetched again, and never taken for the whole."""
    assert get(f"{web}/cut/2") == b"x" * 1000
    assert len(Web.asked) == 3
    assert places.exists(f"{web}/200")
    assert places.glob(f"{web}/200") == [f"{web}/200"]
    with places.open_input(f"{web}/200") as file:
        file.seek(990)
        assert file.read() == b"x" * 10


@pytest.mark.parametrize(
    ("path", "asked", "reason"), [("404", 1, "HTTP 404"), ("503", 5, "HTTP 503"), ("cut/9", 5, "ended after 10 of 1000")]
)
def test_a_page_that_cannot_be_read_is_exit_4(web: str, path: str, asked: int, reason: str) -> None:
    """Only what may pass is tried again; a credential in the address is not in the message."""
    with pytest.raises(StorageError, match=reason) as caught:
        get(f"{web}/{path}?signature=hidden")
    assert len(Web.asked) == asked
    assert "hidden" not in str(caught.value)
    assert not places.exists(f"{web}/{path}")


def test_a_fetch_that_is_interrupted_leaves_nothing(web: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(places, "_fetch", interrupted)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        places.open_input(f"{web}/200")
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each names what is wrong and what to do."""
    with pytest.raises(UsageError, match="ftp://"):
        places.open_input("ftp://host/x")
    with pytest.raises(UsageError, match="web address"):
        places.filesystem("https://host/x")
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT", raising=False)
    with pytest.raises(UsageError, match="account"):
        places.filesystem("az://container/x")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtra) as caught:
        places.filesystem("hf://datasets/a/b")
    assert caught.value.hint == "pip install 'batchrun[hf]'"
    monkeypatch.delattr(fs, "AzureFileSystem")
    with pytest.raises(StorageError, match="Azure"):
        places.filesystem("abfs://container@other.dfs.core.windows.net/x")


def test_each_cloud_gets_its_own_file_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """Address and path are split as each service names things; nothing is contacted for that."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "127.0.0.1:1")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")
    monkeypatch.delenv("AZURE_STORAGE_SAS_TOKEN", raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    kinds = {
        place: places.filesystem(place)
        for place in ("gs://b/x/y", "abfs://c@account.dfs.core.windows.net/x", "S3://b/x", "relative")
    }
    assert [(type(system), path) for system, path in kinds.values()] == [
        (fs.GcsFileSystem, "b/x/y"),
        (fs.AzureFileSystem, "c/x"),
        (fs.S3FileSystem, "b/x"),
        (fs.LocalFileSystem, str(Path("relative").absolute())),
    ]
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    assert places.filesystem("gcs://b/x")[1] == "b/x"
    assert places.is_remote("s3://b/x")
    assert not places.is_remote("file:///x")


def test_the_hub_is_reached_through_its_own_library(monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.implementations import memory  # noqa: PLC0415  # heavy, and for this test alone

    class Hub:
        HfFileSystem = memory.MemoryFileSystem

    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub)
    put("hf://datasets/a/b/rows.jsonl", b"{}")
    assert get("hf://datasets/a/b/rows.jsonl") == b"{}"


def test_a_run_in_a_bucket_is_resumed_on_another_machine(bucket: str, tmp_path: Path, attempt: Callable[..., Attempt]) -> None:
    """What landed here is there: pulled elsewhere, the journal goes on, and what is newer locally stays."""
    here, there, place = tmp_path / "here", tmp_path / "there", places.join(bucket, "run-1")
    folder = RunFolder.create_at(here)
    folder.manifest.write_text("{}")
    with Mirror(here, place, every_s=60) as mirror, Journal(folder.journal) as journal:
        journal.append(attempt(0))
        journal.flush()
        assert mirror.push() == 2  # the manifest and the segment as it is so far; the reserve is hidden
        assert mirror.push() == 0
        pull(place, there)
        with JournalIndex(there / "journal", seal=False) as index:
            assert index.landed(0)
        journal.append(attempt(1))
    mirror.close()
    assert [found.rpartition("run-1/")[2] for found in places.glob(place)] == [
        "journal/local-000001.idx",
        "journal/local-000001.journal",
        "run.json",
    ]
    pull(place, there)
    with Journal(there / "journal") as again:
        again.append(attempt(2))
    with (there / "journal" / "local-000001.journal").open("ab") as longer:
        longer.write(b"than the copy")
    pull(place, there)
    with JournalIndex(there / "journal") as index:
        assert [index.landed(ordinal) for ordinal in range(4)] == [True, True, True, False]
    assert (there / "run.json").read_text() == "{}"


def test_a_live_run_on_another_machine_is_seen_in_the_bucket(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock file goes up with the rest; its heartbeat tells, and it is gone when the run has ended."""
    place = places.join(bucket, "run-2")
    folder = RunFolder.create_at(tmp_path / "here")
    with folder.lock(), Mirror(folder.path, place, every_s=60) as mirror:
        mirror.push()
        pull(place, tmp_path / "mine")
        monkeypatch.setattr(socket, "gethostname", lambda: "there")
        with pytest.raises(RunLocked, match="in use by process"):
            pull(place, tmp_path / "there")
        pull(place, tmp_path / "there", clock=lambda: time.time() + 3600)
    pull(place, tmp_path / "there")
    put(places.join(place, "lock"), b"")
    pull(place, tmp_path / "there")
    put(places.join(place, "lock"), msgspec.json.encode(Owner(host="x", pid=1, started=None, since=0, beat=0)))
    pull(place, tmp_path / "there")


def test_a_live_run_of_this_machine_that_spools_elsewhere_is_seen_in_the_bucket(bucket: str, tmp_path: Path) -> None:
    """Another user's, or one with another cache folder: no lock is shared with it, the process table tells."""
    place, mine, theirs = places.join(bucket, "run-3"), tmp_path / "mine", tmp_path / "theirs"
    theirs.mkdir()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        owner = Owner(host=socket.gethostname(), pid=other.pid, started=None, since=0, beat=0)
        put(places.join(place, "lock"), msgspec.json.encode(owner))
        (theirs / "lock").write_bytes(msgspec.json.encode(owner))
        with pytest.raises(RunLocked, match=f"in use by process {other.pid}"):
            pull(place, mine)
        pull(place, theirs)  # where the lock itself can be asked, it is
        other.communicate(b"\n")
    pull(place, mine)


def test_copying_up_goes_on_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed copy is told and tried again; the last one raises, or notes itself on the error that ends the run."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "run.json").write_text("{}")
    failing = threading.Event()
    failing.set()
    real = places.upload

    def upload(path: Path, place: str) -> None:
        if failing.is_set():
            raise StorageError("no network")
        real(path, place)

    monkeypatch.setattr(places, "upload", upload)
    mirror = Mirror(tmp_path / "here", str(tmp_path / "there"), every_s=0.005)
    wait_until(lambda: mirror.error)
    failing.clear()
    wait_until(lambda: (tmp_path / "there" / "run.json").exists() and mirror.error is None)
    mirror.close()
    failing.set()
    with pytest.raises(StorageError), Mirror(tmp_path / "here", str(tmp_path / "there"), every_s=60):
        pass

    def fail() -> None:
        with Mirror(tmp_path / "here", str(tmp_path / "there"), every_s=60):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        fail()
    assert caught.value.__notes__ == ["no network"]


def wait_until(condition: Callable[[], object]) -> None:
    """Wait, for ten seconds at most, until `condition` holds."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_bucket_run_has_one_place_on_the_local_disk() -> None:
    """The same for the same run, another for another; the user may say where."""
    one = spool_folder("s3://bucket/reports/weather/run-1", {"XDG_CACHE_HOME": "/cache"})
    assert one == spool_folder("s3://bucket/reports/weather/run-1/", {"XDG_CACHE_HOME": "/cache"})
    assert one != spool_folder("s3://other/reports/weather/run-1", {"XDG_CACHE_HOME": "/cache"})
    assert one.name == "run-1"
    assert one.is_relative_to("/cache/batchrun/runs")
    assert spool_folder("s3://b/run-1", {"BATCHRUN_SPOOL": "/spool"}).is_relative_to("/spool")
    assert spool_folder("s3://b/run-1", {}).is_relative_to(Path.home())
