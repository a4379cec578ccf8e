"""What every test may use."""

from __future__ import annotations

import importlib.util
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import pyarrow.fs as pa_fs


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes the cache of whoever runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, ModuleType], ModuleType]:
    """Load a module anew, as where this extension in C of its package was not built."""

    def load(extension: str, module: ModuleType) -> ModuleType:
        name = f"{module.__package__}.{extension}"
        monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.delattr(name, raising=False)
        spec = importlib.util.spec_from_file_location(module.__name__, str(module.__file__))
        assert spec is not None
        assert spec.loader is not None
        loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
        return loaded

    return load


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[pa_fs.FileSystem]:
    """An empty bucket named `data`, which the usual variables lead to; runs are spooled in `spool`."""
    import pyarrow.fs as pa_fs  # noqa: PLC0415 - as is this
    from moto.server import ThreadedMotoServer  # noqa: PLC0415 - a second that other tests need not pay

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("BATCHRUN_SPOOL", str(tmp_path / "spool"))
    s3 = pa_fs.S3FileSystem(
        access_key="test",
        secret_key="test",  # noqa: S106 - the server takes any
        endpoint_override=f"http://127.0.0.1:{port}",
        allow_bucket_creation=True,
    )
    s3.create_dir("data")
    yield s3
    s3.delete_dir_contents("data")  # what it holds outlives the server
    server.stop()
