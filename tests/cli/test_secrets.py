"""The credential is nowhere: not in the run's folder, not on stdout or stderr, whatever the endpoint echoes."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.cli.endpoint import ANSWER, SAYS, Shell, ended, endpoint, process, reply
from tests.transport.servers import Asked, Peer

KEY = "sk-ant-f00dcafe-NEVER-seen/0123+45=6789"
LEAST = 2


def _error(status: int, key: str) -> bytes:
    body = {"type": "error", "error": {"type": "authentication_error", "message": f"the key {key} is wrong"}}
    return reply(json.dumps(body).encode(), status=status, headers={"request-id": f"req-{key}", "x-echo": key})


def _answer(key: str) -> bytes:
    content: list[dict[str, Any]] = [
        {"type": "text", "text": f"your key is {key}"},
        {"type": "tool_use", "id": f"toolu_{key}", "name": "get_weather", "input": {"location": key, key: key}},
    ]
    body = SAYS | {"id": f"msg-{key}", "model": key, "content": content}
    return reply(json.dumps(body).encode(), headers={"request-id": key, "anthropic-ratelimit-requests-limit": key})


def _cut_stream(key: str) -> bytes:
    start = {"type": "message_start", "message": SAYS | {"content": [], "stop_reason": None}}
    delta = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": key}}
    events = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in (start, delta))
    return reply(events.encode(), headers={"content-type": "text/event-stream"})


def _page(key: str) -> bytes:
    return reply(f"<html>proxy says authorization: Bearer {key}</html>".encode())


ECHOES: dict[str, Any] = {
    "401": lambda key: _error(401, key),
    "400": lambda key: _error(400, key),
    "500": lambda key: _error(500, key),
    "answer": _answer,
    "cut": _cut_stream,
    "page": _page,
    "redirect": lambda key: reply(b"", status=302, headers={"location": f"https://login.example/?key={key}"}),
    "no http": lambda key: f"{key} {key}\r\n\r\n".encode(),
    "bad event": lambda key: reply(f"data: {{{key}\n\n".encode()),
}


@pytest.mark.parametrize(
    ("echo", "variable"), [*((echo, "ANTHROPIC_API_KEY") for echo in ECHOES), ("401", "ANTHROPIC_AUTH_TOKEN")]
)
def test_the_credential_is_nowhere(shell: Shell, monkeypatch: pytest.MonkeyPatch, echo: str, variable: str) -> None:
    """An endpoint that echoes what it was sent, in every place it can."""
    monkeypatch.setenv(variable, KEY)

    async def say(peer: Peer, asked: Asked) -> None:
        assert KEY in (asked.headers.get("x-api-key") or asked.headers.get("authorization", ""))
        await peer.say(ECHOES[echo](KEY) if b"row 1" in asked.body or echo == "401" else reply(ANSWER))
        if echo == "no http":
            raise ConnectionResetError

    data = shell.write("rows.jsonl", *({"prompt": f"row {row}"} for row in range(3)))
    flags = ("--model", "m", "--out", "out", "--json", "--set", "limits.max_attempts=1", "--set", "limits.max_error_rate=1")
    with endpoint(say) as served:
        done = shell("run", data, "--base-url", served.base_url, *flags)
        again = shell("resume", "out", "--retry-errors", "--base-url", served.base_url)
        shown = shell("report", "out")
    assert len(served.asked) >= LEAST
    assert _seen(shell.folder) == []
    for text in (done.out, done.err, again.out, again.err, shown.out, shown.err):
        assert not [form for form in _forms() if form in text]


def test_a_job_that_holds_a_credential_is_not_copied(shell: Shell) -> None:
    """Headers and a proxy's password may be secrets: `run.json` names the keys it leaves out."""
    data = shell.write("rows.jsonl", {"prompt": "row"})
    (shell.folder / "job.toml").write_text(
        f'dataset = "{data}"\n[request]\nmodel = "m"\n[endpoint]\nheaders = {{ x-gateway-key = "{KEY}" }}\n'
    )
    with endpoint() as served:
        done = shell("run", "job.toml", "--base-url", served.base_url, "--out", "out", "--json")
    assert served.asked[0].headers["x-gateway-key"] == KEY
    assert done.code == 0
    assert KEY not in done.out + done.err
    (shell.folder / "job.toml").unlink()
    assert _seen(shell.folder) == []


def test_a_secret_that_only_the_command_line_had_is_asked_for_again(shell: Shell) -> None:
    data = shell.write("rows.jsonl", {"prompt": "row"})
    (shell.folder / "job.toml").write_text(f'dataset = "{data}"\n[request]\nmodel = "m"\n')
    given = ("--set", "endpoint.headers.X-Auth-Key=header-secret", "--set", "notify.webhook=http://127.0.0.1:9/hook-secret")
    with endpoint() as served:
        assert shell("run", "job.toml", "--base-url", served.base_url, "--out", "out", *given).code == 0
        for again in (("resume", "out"), ("score", "out"), ("cancel", "out")):
            ended = shell(*again)
            assert ended.code == 2, again
            assert "--set endpoint.headers.X-Auth-Key=… --set notify.webhook=…" in ended.err
        assert shell("resume", "out", *given).code == 0


def test_the_query_of_an_address_is_refused_and_not_repeated(shell: Shell) -> None:
    data = shell.write("rows.jsonl", {"prompt": "row"})
    ended = shell("run", data, "--model", "m", "--base-url", "http://127.0.0.1:9/?key=query-secret")
    assert (ended.code, "holds a query" in ended.err, "query-secret" in ended.out + ended.err) == (2, True, False)


def test_a_crash_shows_no_credential(tmp_path: Path) -> None:
    """A bug's traceback is the last place where a value may come out."""
    (tmp_path / "rows.jsonl").write_text('{"prompt": "row"}\n')
    wrong = KEY + "\n"
    started = process(
        tmp_path, ("run", "rows.jsonl", "--model", "m", "--base-url", "http://127.0.0.1:9"), ANTHROPIC_API_KEY=wrong
    )
    done = ended(started)
    assert done.code != 0
    assert KEY not in done.out + done.err


def _forms() -> list[str]:
    """Return the ways the credential may be written."""
    escaped = KEY.replace("/", "\\/")
    return [KEY, escaped, base64.b64encode(KEY.encode()).decode()]


def _seen(folder: Path) -> list[str]:
    """Return the files below `folder` that hold the credential, as they are or once they are decoded."""
    return [str(file) for file in folder.rglob("*") if file.is_file() and any(form in _text(file) for form in _forms())]


def _text(file: Path) -> str:
    """Return what a file says; Parquet is compressed, so it is read."""
    text = file.read_bytes().decode("latin-1")
    return text if file.suffix != ".parquet" else f"{text} {pq.read_table(file).to_pylist()}"
