"""`batchrun view` over a real socket: who is let in, what exists, and that every row can be reached."""

from __future__ import annotations

import http.client
import json
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from urllib.parse import quote

import pytest

from batchrun.report.server import ViewServer
from batchrun.report.stored_page import Samples
from batchrun.report.viewer import Viewer
from tests.report.conftest import MODEL, make_mixed_rows, make_row, make_sample, write_run
from tests.report.test_page import HOSTILE, Page


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("served") / "run"
    write_run(path, make_mixed_rows())
    return path


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[ViewServer]:
    with started(folder) as running:
        yield running
        running.shutdown()


def started(folder: Path, samples: Samples | None = None) -> ViewServer:
    server = ViewServer(Viewer(folder, json.loads((folder / "summary.json").read_bytes()), samples))
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    return server


class Answer:
    """One answer, read whole."""

    def __init__(self, server: ViewServer, path: str, *, method: str = "GET", host: str | None = None) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        if host != "":
            connection.putheader("Host", host or f"127.0.0.1:{server.server_port}")
        connection.endheaders()
        response = connection.getresponse()
        self.status, self.headers, self.body = response.status, response.headers, response.read()
        connection.close()

    @property
    def text(self) -> str:
        """The body, decoded."""
        return self.body.decode()


def test_the_address_opens_the_page_of_the_run(server: ViewServer) -> None:
    answer = Answer(server, f"/{server.token}/")
    assert answer.status == 200
    page = Page(answer.text)
    assert page.open == []
    assert len(page.named("details")) == 50
    assert "300 of 300 rows match" in page.text
    assert server.url == f"http://127.0.0.1:{server.server_port}/{server.token}/"


@pytest.mark.parametrize("path", ["/", "", "/x/", "/{almost}/", "/{token}", "/%2e%2e/", "/{token}x/"])
def test_without_the_token_there_is_nothing(server: ViewServer, path: str) -> None:
    path = path.format(token=server.token, almost=server.token[:-1])
    answer = Answer(server, path)
    assert answer.status == 403
    assert server.token not in answer.text


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "10.0.0.7", "", "[::1", "a@b"])
def test_a_host_that_is_not_this_machine_is_refused(server: ViewServer, host: str) -> None:
    """A name of somebody else's that resolves to loopback (DNS rebinding) must not reach the run, token or not."""
    assert Answer(server, f"/{server.token}/", host=host).status == 403


@pytest.mark.parametrize("host", ["localhost", "localhost:9000", "[::1]:80", "127.0.0.1"])
def test_names_of_this_machine_are_let_in(server: ViewServer, host: str) -> None:
    assert Answer(server, f"/{server.token}/", host=host, method="HEAD").status == 200


@pytest.mark.parametrize(
    "path",
    [
        "files/../summary.json",
        "files/..%2f..%2fetc%2fpasswd",
        "files//etc/passwd",
        "../run/summary.json",
        "files/lock",
        "files/journal/segment",
        "files/",
        "files",
        "rows",
        "summary.json",
        "./files/summary.json",
        "files/summary.json/",
        "files/summary.json%00",
        "files\\summary.json",
    ],
)
def test_only_the_runs_own_files_exist(server: ViewServer, path: str, folder: Path) -> None:
    (folder / "lock").write_text("owner")
    assert Answer(server, f"/{server.token}/{path}").status == 404


def test_the_runs_files_are_handed_out_to_be_saved(server: ViewServer, folder: Path) -> None:
    answer = Answer(server, f"/{server.token}/files/summary.json")
    assert (answer.status, answer.body) == (200, (folder / "summary.json").read_bytes())
    assert answer.headers["Content-Disposition"] == 'attachment; filename="summary.json"'
    assert Answer(server, f"/{server.token}/files/junit.xml").status == 404


def test_a_link_in_the_folder_leads_nowhere_else(server: ViewServer, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (folder / "other").symlink_to(tmp_path / "secret")
    assert Answer(server, f"/{server.token}/files/other").status == 404


@pytest.mark.parametrize("path", ["/{token}/", "/", "/{token}/none", "/{token}/files/summary.json"])
def test_every_answer_keeps_to_itself(server: ViewServer, path: str) -> None:
    headers = Answer(server, path.format(token=server.token)).headers
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    assert "Access-Control-Allow-Origin" not in headers
    assert "Python" not in headers["Server"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_can_be_changed(server: ViewServer, method: str) -> None:
    assert Answer(server, f"/{server.token}/", method=method).status == 501


def test_every_matching_row_is_reached_by_its_pages(server: ViewServer) -> None:
    seen: list[str] = []
    path = f"/{server.token}/?outcome=failing&sort=-latency_ms"
    while path:
        page = Page(Answer(server, path).text)
        seen += [a["href"] or "" for a in page.named("a") if (a["href"] or "").startswith("row?")]
        following = [a["href"] or "" for a in page.named("a") if a.get("rel") == "next"]
        path = f"/{server.token}/{following[0].removeprefix('./').partition('#')[0]}" if following else ""
    assert len(seen) == len(set(seen)) == 100


def test_filters_and_search_narrow_the_rows(server: ViewServer) -> None:
    def matching(query: str) -> str:
        return Page(Answer(server, f"/{server.token}/?{query}").text).text.partition(" of 300 rows match")[0].split()[-1]

    assert matching("outcome=invalid_json") == matching("outcome=invalid_json&text=CITY")
    assert matching("text=ROW-29") == "11"
    assert matching(f"model={MODEL}&tag=lang%3Aen") == "300"
    assert matching("model=other") == "0"
    assert matching("text=.*") == "0"
    assert matching("page=99999999999999999999&sort=nonsense&outcome=%00") == "0"
    assert matching("page=-1&sort=nonsense") == "300"


def test_hostile_queries_stay_text(server: ViewServer) -> None:
    harmless = [(tag, sorted(a)) for tag, a in Page(Answer(server, f"/{server.token}/?text=zz").text).tags]
    for bad in HOSTILE:
        word = quote(bad, errors="replace")
        page = Page(Answer(server, f"/{server.token}/?text={word}&outcome=&tag=&model=&sort={word}").text)
        assert [(tag, sorted(a)) for tag, a in page.tags] == harmless


def test_one_row_has_a_page_with_its_texts_in_full(tmp_path: Path) -> None:
    rows = [make_row(index, text="long " * 2000 + "end") for index in range(3)]
    write_run(tmp_path / "run", rows)
    with started(tmp_path / "run", lambda start: (make_sample(row) for row in rows if row.index >= start)) as server:
        answer = Answer(server, f"/{server.token}/row?index=1&model={MODEL}&repeat=0")
        assert answer.status == 200
        assert "long end" in answer.text
        assert "How is the weather in Oslo? (row-1)" in answer.text
        for wrong in ("", "index=x&model=m&repeat=0", f"index=7&model={MODEL}&repeat=0", f"index={1 << 70}&model=m&repeat=0"):
            assert Answer(server, f"/{server.token}/row?{wrong}").status == 404
        server.shutdown()


def test_results_that_go_away_are_told_and_the_server_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "run", make_mixed_rows())
    server = started(tmp_path / "run")
    (tmp_path / "run" / "results.parquet").rename(tmp_path / "away")
    answer = Answer(server, f"/{server.token}/")
    assert (answer.status, "results.parquet" in answer.text) == (500, True)
    (tmp_path / "away").rename(tmp_path / "run" / "results.parquet")
    assert Answer(server, f"/{server.token}/").status == 200
    with socket.create_connection(("127.0.0.1", server.server_port)) as gone:
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset when it closes
        gone.sendall(f"GET /{server.token}/".encode())
    assert Answer(server, f"/{server.token}/").status == 200
    server.shutdown()
    server.server_close()
    assert capsys.readouterr().err == ""
