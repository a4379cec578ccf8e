"""Serves a `Viewer` on loopback to whoever has the address with its secret in it, and to no page of another site.

Every request must name this machine in `Host` (a name of somebody else's that resolves here is refused: DNS rebinding) and
hold the token in its path, compared in constant time; both refusals are a bare 403. Only pages of the run and a fixed list
of its files exist: no path of a request is ever joined to a folder. Nothing is logged, because the address is the key.
"""

from __future__ import annotations

import hmac
import secrets
import shutil
import sys
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final
from urllib.parse import urlsplit

from batchrun.errors import BatchrunError
from batchrun.report.viewer import FILES, Viewer

HOSTS: Final = frozenset({"127.0.0.1", "localhost", "::1"})
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_IDLE_S: Final = 30


class ViewServer(ThreadingHTTPServer):
    """Listens on 127.0.0.1; `url` is the address to open."""

    daemon_threads = True

    def __init__(self, viewer: Viewer, port: int = 0) -> None:
        """Listen on `port`, or on a free one. Raises `OSError` where it is taken."""
        self.viewer = viewer
        self.token = secrets.token_urlsafe(24)
        super().__init__(("127.0.0.1", port), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a browser that went away; what else goes wrong with a connection is a bug and shown."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # as it was given to us

    @property
    def url(self) -> str:
        """The address with its secret."""
        return f"http://127.0.0.1:{self.server_port}/{self.token}/"


class _Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    server: ViewServer
    protocol_version = "HTTP/1.1"
    server_version = "batchrun"
    sys_version = ""
    timeout = _IDLE_S

    def do_GET(self) -> None:
        """Answer with a page or a file."""
        rest = self._allowed()
        if rest is None:
            self._answer("403: open the address that `batchrun view` printed\n", HTTPStatus.FORBIDDEN, kind="text/plain")
            return
        try:
            self._show(*rest)
        except BatchrunError as error:  # its results went away, or cannot be read
            self._answer(f"500: {error}\n", HTTPStatus.INTERNAL_SERVER_ERROR, kind="text/plain")

    def _show(self, path: str, query: str) -> None:
        """Answer with the page or the file at a path below the token."""
        viewer = self.server.viewer
        pages: dict[str, Callable[[str], str | None]] = {"": viewer.page, "row": viewer.row}
        folder, _, name = path.rpartition("/")
        if path in pages:
            page = pages[path](query)
            if page is not None:
                self._answer(page, HTTPStatus.OK)
                return
        elif folder == "files" and name in FILES and (viewer.folder / name).is_file():
            self._send_file(name)
            return
        self._answer("404: there is no such page\n", HTTPStatus.NOT_FOUND, kind="text/plain")

    do_HEAD = do_GET  # noqa: N815 - the name `http.server` looks for

    def end_headers(self) -> None:
        """Add what keeps the page to itself, to errors too."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing: a request's line holds the token."""

    def _allowed(self) -> tuple[str, str] | None:
        """Return the path below the token, and the query; None where the request may not ask."""
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or _host_name(hosts[0]) not in HOSTS:
            return None
        path, _, query = self.path.partition("?")
        token, slash, rest = path.removeprefix("/").partition("/")
        if not hmac.compare_digest(token.encode("utf-8", "replace"), self.server.token.encode()) or not slash:
            return None
        return rest, query

    def _answer(self, text: str, status: HTTPStatus, *, kind: str = "text/html") -> None:
        """Send one text."""
        body = text.encode("utf-8", "replace")
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _send_file(self, name: str) -> None:
        """Send one of the run's files, to be saved and not shown."""
        with (self.server.viewer.folder / name).open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(0)
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Disposition", f'attachment; filename="{name}"')
            self.send_header("Content-Length", str(size))
            self.end_headers()
            if self.command != "HEAD":
                shutil.copyfileobj(stream, self.wfile)


def _host_name(host: str) -> str | None:
    """Return the name in a `Host` header without its port, None where it cannot be read."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
