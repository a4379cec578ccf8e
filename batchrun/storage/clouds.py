"""The address of a bucket and the environment in, Arrow's file system for it out; its errors, one line each.

Which variables each service is known by is told in `places`. This module refuses to know local files and runs.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import functools
import importlib
import os
import re
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

from batchrun.errors import BatchrunError, MissingExtra, StorageError, UsageError

AZURE: Final = frozenset({"az", "abfs", "abfss"})
HUB: Final = "hf"

_CONNECT_S: Final = 10
_READ_S: Final = 60
_ATTEMPTS: Final = 5
_RETRY_S: Final = 15
"""How long Google's client may try again; its own 15 minutes would keep a mistyped address waiting."""

_GOOGLE: Final = re.compile(r"with a last message of (?P<said>.*?)(?: error_info=|\). Detail:|$)")
_UNDERLYING: Final = "The underlying error message was: "


def filesystem(scheme: str, address: str) -> tuple[fs.FileSystem, str]:
    """Return (file system, path in it) for `scheme://address`. Raises `MissingExtra`, `UsageError`, `StorageError`."""
    container, _, path = address.partition("/")
    if scheme == "s3":
        return _s3(*_s3_settings()), f"{container}/{path}"
    if scheme in {"gs", "gcs"}:
        return _gcs(os.environ.get("STORAGE_EMULATOR_HOST")), f"{container}/{path}"
    if scheme in AZURE:
        name, _, host = container.partition("@")
        return _azure(*_azure_settings(name, host)), f"{name}/{path}"
    return _hub(), address


@contextlib.contextmanager
def translated(place: str, doing: str) -> Iterator[None]:
    """Raise what Arrow's file systems raise as `StorageError`."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        hint = "check the address, the credentials in the environment and the network"
        raise StorageError(f"{place}: cannot {doing}: {_reason(error, doing)}", hint=hint) from error


def _reason(error: Exception, doing: str) -> str:
    """Return what a service said, without what its client says about itself."""
    if isinstance(error, OSError) and error.errno:
        gone = error.errno == errno.ENOENT and doing == "write"
        return "there is no such bucket" if gone else os.strerror(error.errno)
    text = str(error).partition("\n")[0].strip().removeprefix("Unknown error: ")
    if found := _GOOGLE.search(text):
        _, unsent, text = found["said"].rpartition(_UNDERLYING)
        text = f"no access token: {text}" if unsent else text
    return text


def _s3_settings() -> tuple[str | None, str | None]:
    """Return (endpoint, region) from the usual variables, which Arrow does not read itself."""
    environ = os.environ
    endpoint = environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL")
    return endpoint, environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")


@functools.lru_cache(maxsize=8)
def _s3(endpoint: str | None, region: str | None) -> fs.FileSystem:
    """Return the S3 file system of an endpoint (None: Amazon's)."""
    options: dict[str, Any] = {"connect_timeout": _CONNECT_S, "request_timeout": _READ_S}
    if endpoint:
        parts = urlsplit(endpoint)
        options |= {"scheme": parts.scheme or "https", "endpoint_override": parts.netloc or endpoint}
    if region or endpoint:
        options["region"] = region or "us-east-1"
    return fs.S3FileSystem(retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS), **options)


@functools.lru_cache(maxsize=8)
def _gcs(emulator: str | None) -> fs.FileSystem:
    """Return the Google file system, of an emulator where the usual variable names one."""
    patience = dt.timedelta(seconds=_RETRY_S)
    if not emulator:
        return fs.GcsFileSystem(retry_time_limit=patience)
    parts = urlsplit(emulator if "://" in emulator else f"http://{emulator}")
    return fs.GcsFileSystem(anonymous=True, scheme=parts.scheme, endpoint_override=parts.netloc, retry_time_limit=patience)


def _azure_settings(container: str, host: str) -> tuple[str, str | None, str | None, str, str, str]:
    """Return account, key, token, scheme, and the blob and the data lake service's authority as Arrow wants them.

    From `host` of `container@host`, the variables one by one and the connection string, in this order; a connection string
    of another account is left alone. An authority that begins with a dot is put behind the account's name.
    """
    environ = os.environ
    told = dict(part.split("=", 1) for part in environ.get("AZURE_STORAGE_CONNECTION_STRING", "").split(";") if "=" in part)
    named, _, behind = host.partition(".")
    account = (
        named or environ.get("AZURE_STORAGE_ACCOUNT_NAME") or environ.get("AZURE_STORAGE_ACCOUNT") or told.get("AccountName")
    )
    if not account:
        raise UsageError(f"az://{container}: which storage account is not told", hint="set AZURE_STORAGE_ACCOUNT_NAME")
    if told.get("AccountName") != account:
        told = {}
    key = environ.get("AZURE_STORAGE_ACCOUNT_KEY") or environ.get("AZURE_STORAGE_KEY") or told.get("AccountKey")
    token = None if key else environ.get("AZURE_STORAGE_SAS_TOKEN") or told.get("SharedAccessSignature")
    if token:
        token = "?" + token.removeprefix("?")  # Arrow puts it behind the address as it is
    scheme = told.get("DefaultEndpointsProtocol", "https")
    suffix = behind.removeprefix("dfs.").removeprefix("blob.") or told.get("EndpointSuffix", "core.windows.net")
    blob, lake = f".blob.{suffix}", f".dfs.{suffix}"
    if endpoint := told.get("BlobEndpoint"):
        scheme, where, *_ = urlsplit(endpoint)
        blob = where.removeprefix(account)
        lake = blob.replace(".blob.", ".dfs.", 1)
    return account, key, token, scheme, blob, lake


@functools.lru_cache(maxsize=8)
def _azure(account: str, key: str | None, token: str | None, scheme: str, blob: str, lake: str) -> fs.FileSystem:
    """Return the Azure file system of an account."""
    if not hasattr(fs, "AzureFileSystem"):
        raise StorageError("this build of pyarrow has no Azure file system", hint="pip install --upgrade pyarrow")
    options: dict[str, Any] = {
        "account_key": key,
        "sas_token": token,
        "blob_storage_authority": blob,
        "blob_storage_scheme": scheme,
    }
    options |= {"dfs_storage_authority": lake, "dfs_storage_scheme": scheme}
    return fs.AzureFileSystem(account, **{name: value for name, value in options.items() if value is not None})


def _hub() -> fs.FileSystem:
    """Return the file system of the Hugging Face hub."""
    try:
        hub: Any = importlib.import_module("huggingface_hub")
    except ImportError:
        raise MissingExtra("reading hf:// places", "hf") from None
    return fs.PyFileSystem(_HubHandler(hub.HfFileSystem()))


@contextlib.contextmanager
def _spoken() -> Iterator[None]:
    """Raise every error of the hub's library as an `OSError`: those of its HTTP library, which one by version, are none."""
    try:
        yield
    except (OSError, BatchrunError):
        raise
    except Exception as error:
        raise OSError(str(error) or type(error).__name__) from error


_Handler: Any = fs.FSSpecHandler


class _HubHandler(_Handler):  # type: ignore[misc]  # the stubs know no methods of it
    """Arrow's way to the hub's file system, whose failures are `OSError`s."""

    def get_file_info(self, paths: list[str]) -> Any:
        """Return what is at each path."""
        with _spoken():
            return super().get_file_info(paths)

    def get_file_info_selector(self, selector: fs.FileSelector) -> Any:
        """Return what is under a folder."""
        with _spoken():
            return super().get_file_info_selector(selector)

    def open_input_file(self, path: str) -> Any:
        """Return a file that can be read from anywhere in it."""
        with _spoken():
            self.fs.info(path)  # says why where there is none; `isfile` would not
            file: Any = _HubFile(self.fs.open(path, mode="rb"))
            return pa.PythonFile(file, mode="r")


class _HubFile:
    """A file on the hub, read in ranges."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes. Raises `OSError`."""
        with _spoken():
            return bytes(self._file.read(size))
