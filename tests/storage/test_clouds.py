"""Addresses of buckets: what each service's client is told, what shows during an upload, what is said when it fails."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from pyarrow import fs

from batchrun.errors import StorageError
from batchrun.storage import clouds, places

EMULATOR = (
    "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey=a2V5PT0=;"
    "BlobEndpoint=http://127.0.0.1:10000/devstoreaccount1;"
)
ABROAD = "DefaultEndpointsProtocol=https;AccountName=mine;AccountKey=a2V5;EndpointSuffix=core.chinacloudapi.cn"
SIGNED = "BlobEndpoint=https://mine.blob.core.windows.net/;SharedAccessSignature=sv=1&sig=x%3D;AccountName=mine"


@pytest.fixture
def azure(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, dict[str, str]]]]:
    """Return what Azure's client was asked for, account and options; no variable is set."""
    asked: list[tuple[str, dict[str, str]]] = []

    def client(account: str, **options: str) -> fs.FileSystem:
        asked.append((account, options))
        return fs.LocalFileSystem()

    monkeypatch.setattr(fs, "AzureFileSystem", client)
    for name in ("ACCOUNT_NAME", "ACCOUNT", "ACCOUNT_KEY", "KEY", "SAS_TOKEN", "CONNECTION_STRING"):
        monkeypatch.delenv(f"AZURE_STORAGE_{name}", raising=False)
    clouds._azure.cache_clear()
    yield asked
    clouds._azure.cache_clear()


@pytest.mark.parametrize(
    ("told", "address", "credentials", "blob"),
    [
        (EMULATOR, "az://data/x", ("devstoreaccount1", "a2V5PT0=", None), "http 127.0.0.1:10000"),
        (ABROAD, "az://data/x", ("mine", "a2V5", None), "https .blob.core.chinacloudapi.cn"),
        (SIGNED, "az://data/x", ("mine", None, "?sv=1&sig=x%3D"), "https .blob.core.windows.net"),
        (EMULATOR, "abfs://data@other.dfs.core.windows.net/x", ("other", None, None), "https .blob.core.windows.net"),
        ("", "abfs://data@far.dfs.core.usgovcloudapi.net/x", ("far", None, None), "https .blob.core.usgovcloudapi.net"),
    ],
)
def test_an_azure_account_is_known_by_its_address_or_its_connection_string(
    azure: list[tuple[str, dict[str, str]]],
    monkeypatch: pytest.MonkeyPatch,
    told: str,
    address: str,
    credentials: tuple[str, str | None, str | None],
    blob: str,
) -> None:
    """A connection string of another account than the address names gives nothing away."""
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", told)
    assert places.filesystem(address)[1] == "data/x"
    [(account, options)] = azure
    assert (account, options.get("account_key"), options.get("sas_token")) == credentials
    assert f"{options['blob_storage_scheme']} {options['blob_storage_authority']}" == blob
    assert options["dfs_storage_authority"] == options["blob_storage_authority"].replace(".blob.", ".dfs.")


def test_google_is_not_waited_for_a_quarter_of_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, Any]] = []
    monkeypatch.setattr(fs, "GcsFileSystem", lambda **options: given.append(options))
    for emulator in (None, "127.0.0.1:1"):
        clouds._gcs.__wrapped__(emulator)
    assert [options["retry_time_limit"].total_seconds() for options in given] == [15, 15]


def test_an_upload_to_a_bucket_that_shows_what_it_has_not_is_seen_when_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Azure's does: until the upload has ended the old content is there, and after a failure it stays."""
    bucket, source = tmp_path / "data", tmp_path / "source"
    bucket.mkdir()
    (bucket / "rows").write_bytes(b"old")
    source.write_bytes(b"new" * 1000)
    system = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    monkeypatch.setattr(clouds, "filesystem", lambda _scheme, address: (system, address))
    copy, seen = places._copy, []

    def watched(read: Any, write: Any, size: int) -> None:
        copy(read, write, size // 2)
        seen.append((bucket / "rows").read_bytes())
        if size > 3000:
            raise OSError("the line is cut")
        copy(read, write, size - size // 2)

    monkeypatch.setattr(places, "_copy", watched)
    places.upload(source, "az://data/rows")
    assert (seen, (bucket / "rows").read_bytes()) == ([b"old"], b"new" * 1000)

    source.write_bytes(b"more" * 1000)
    with pytest.raises(StorageError, match="the line is cut"):
        places.upload(source, "az://data/rows")
    assert (bucket / "rows").read_bytes() == b"new" * 1000
    assert [path.name for path in bucket.iterdir()] == ["rows"]


GOOGLE = "google::cloud::Status({}: {}, with a last message of {} error_info={{reason=, domain=, metadata={{}}}})"
UNSENT = (
    "Could not create a OAuth2 access token to authenticate the request. The request was not sent, as such an access token is "
    "required to complete the request successfully. Learn more about Google Cloud authentication at "
    "https://cloud.google.com/docs/authentication. The underlying error message was: "
)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            pa.ArrowException(
                "Unknown error: " + GOOGLE.format("UNKNOWN", "Permanent error", UNSENT + "Cannot open credentials file x")
            ),
            "no access token: Cannot open credentials file x",
        ),
        (
            OSError(GOOGLE.format("UNAVAILABLE", "Retry policy exhausted", "CURL error [7]=Could not connect to server")),
            "CURL error [7]=Could not connect to server",
        ),
        (FileNotFoundError(2, GOOGLE.format("NOT_FOUND", "Permanent error", "404")), "there is no such bucket"),
        (PermissionError(13, "no"), "Permission denied"),
        (
            OSError("UploadFrom failed for 'x'. Azure Error: [ContainerNotFound] 404\nRequestId:1"),
            "UploadFrom failed for 'x'. Azure Error: [ContainerNotFound] 404",
        ),
    ],
)
def test_what_a_service_says_is_told_in_a_line(error: Exception, said: str) -> None:
    """Its words as its client hands them on, less what the client says about itself."""
    with pytest.raises(StorageError) as caught, clouds.translated("gs://b/x", "write"):
        raise error
    assert str(caught.value) == f"gs://b/x: cannot write: {said}"
    assert caught.value.exit_code == 4


class FailingHub(MemoryFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A hub whose HTTP library speaks of broken lines in a class of its own."""

    protocol = "failing"
    broken: str = ""

    class ConnectError(Exception):
        """No `OSError`."""

    def info(self, path: str, **given: Any) -> dict[str, Any]:
        """Return what is at a path, or fail."""
        self.fail("info")
        found: dict[str, Any] = super().info(path, **given)
        return found

    def open(self, path: str, mode: str = "rb", **given: Any) -> Any:
        """Return a file that fails later."""
        file = super().open(path, mode, **given)
        read: Callable[[int], bytes] = file.read

        def failing(size: int = -1) -> bytes:
            self.fail("read")
            return read(size)

        if mode == "rb":
            file.read = failing
        return file

    def fail(self, doing: str) -> None:
        """Fail if it is time."""
        if FailingHub.broken == doing:
            raise FailingHub.ConnectError("the hub hung up")


def test_a_hub_that_fails_in_words_of_its_own_is_exit_4(monkeypatch: pytest.MonkeyPatch) -> None:
    """Listing, opening and reading: never an error that nobody knows."""

    class Hub:
        HfFileSystem = FailingHub

    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub)
    place = "hf://datasets/a/b/rows.jsonl"
    with places.open_output(place) as file:
        file.write(b"{}")
    assert places.glob(place) == [place]
    monkeypatch.setattr(FailingHub, "broken", "info")
    with pytest.raises(StorageError, match="cannot list: the hub hung up"):
        places.glob(place)
    with pytest.raises(StorageError, match="cannot read: the hub hung up"):
        places.open_input(place)
    monkeypatch.setattr(FailingHub, "broken", "")
    with places.open_input(place) as file:
        monkeypatch.setattr(FailingHub, "broken", "read")
        with pytest.raises(OSError, match="the hub hung up"):
            file.read()
    monkeypatch.setattr(FailingHub, "broken", "")
    with pytest.raises(StorageError, match="cannot read"):
        places.open_input("hf://datasets/a/b/none")
