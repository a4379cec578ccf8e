"""Ranges finished as tasks of a Ray cluster on this machine: the bytes of one process."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.finish.conftest import FILES, Run

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'batchrun[ray]'")

PATIENCE_S = 120.0
OPEN = {"RAY_AUTH_MODE": "disabled"}  # a token that some other cluster left behind is not this one's
FINISH = textwrap.dedent("""
    import sys
    from pathlib import Path

    from batchrun import cluster
    from tests.finish.conftest import Run, others

    folder, address, beside, workers = Path(sys.argv[1]), sys.argv[2] or None, sys.argv[3] == "beside the driver", 2
    run = Run(folder, ("engine.kind", "ray"), ("engine.workers", workers), *([("engine.address", address)] if address else []))
    here = []

    def spread(order, ranges):
        for part in cluster.spread(order, ranges, here=beside):
            here.append(part is None)
            yield part

    with cluster.connected(address, workers):
        run.finish(others(spread, workers))
    assert here and not any(here), "ranges were given back"
""")


DYING = textwrap.dedent("""
    import os, signal, sys
    from pathlib import Path

    from batchrun import cluster
    from tests.finish.conftest import Run, others

    run = Run(Path(sys.argv[1]), ("engine.kind", "ray"), ("engine.workers", 2))
    here, finish = [], cluster._finish

    def dying(order, rows, environ):
        if rows.number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return finish(order, rows, environ)

    def spread(order, ranges):
        for rows, part in zip(ranges, cluster.spread(order, ranges), strict=True):
            if part is None:
                here.append(rows.number)
            yield part

    cluster._finish = dying
    with cluster.connected(None, 2):
        run.finish(others(spread, 2))
    assert here == [1], here
""")


def finish_on_ray(folder: Path, address: str = "", script: str = FINISH, where: str = "anywhere", **environ: str) -> None:
    """Finish a run in an interpreter of its own: what Ray leaves behind in one is not for a test's."""
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder), address, where],
        env={**os.environ, "PYTHONPATH": root, "RAY_DEDUP_LOGS": "0", **environ},
        cwd=root,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("where", ["anywhere", "beside the driver"])
def test_tasks_of_a_cluster_give_the_bytes_of_one_process(folder: Path, where: str) -> None:
    """A cluster of this machine alone, begun and ended with the run; a run in a bucket is finished where it is spooled."""
    whole, _ = Run(folder).finish()
    finish_on_ray(folder, where=where)
    assert {name: (folder / name).read_bytes() for name in FILES} == whole


def test_a_cluster_that_is_there_is_found(folder: Path) -> None:
    """`address = "auto"`: the cluster that this machine belongs to, which goes on afterwards."""
    whole, _ = Run(folder).finish()
    with a_cluster() as address:
        finish_on_ray(folder, "auto", RAY_ADDRESS=address, **OPEN)
        finish_on_ray(folder, "auto", RAY_ADDRESS=address, **OPEN)
    assert {name: (folder / name).read_bytes() for name in FILES} == whole


def test_what_a_killed_task_was_to_finish_is_finished_here(folder: Path) -> None:
    """Its process dies, and so does the one of its second try: the driver takes the range over, with the same bytes."""
    whole, _ = Run(folder).finish()
    finish_on_ray(folder, script=DYING)
    assert {name: (folder / name).read_bytes() for name in FILES} == whole


@contextmanager
def a_cluster() -> Iterator[str]:
    """Start a cluster's head on 127.0.0.1 with a folder and ports of its own; end it, and nobody else's."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    temporary = Path(tempfile.mkdtemp(prefix="br"))  # Ray's sockets need a shorter path than pytest's folders have
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--node-ip-address=127.0.0.1"]
    limits = ["--num-cpus=2", f"--object-store-memory={80 << 20}", "--include-dashboard=false", "--disable-usage-stats"]
    head = subprocess.Popen(
        [*command, *limits, f"--port={port}", f"--temp-dir={temporary}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **OPEN},
        start_new_session=True,
    )
    try:
        wait_for(port, head)
        yield f"127.0.0.1:{port}"
    finally:
        head.send_signal(signal.SIGTERM)
        try:
            head.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(head.pid, signal.SIGKILL)
            head.wait()
        shutil.rmtree(temporary, ignore_errors=True)


def wait_for(port: int, head: subprocess.Popen[bytes]) -> None:
    """Return once the cluster answers."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        assert head.poll() is None, "the cluster's head has ended"
        assert time.monotonic() < deadline, "the cluster does not come up"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
