"""Bad input through the command line: the contract's exit code, words to act on, nothing sent, never a traceback."""

from __future__ import annotations

import os
import socket
import ssl
import time
from pathlib import Path

import pytest
import trustme

from batchrun.storage.folder import RunFolder
from tests.cli.endpoint import WEATHER, Endpoint, Shell, endpoint, reply, serving
from tests.transport.servers import Asked, Peer

BAD_ROWS: list[tuple[object, tuple[str, ...]]] = [
    ('{"prompt": }', ("row 1 (line 2)", "is not valid JSON", "each line must be one JSON object")),
    ({"id": "x"}, ("row 2 (line 3), field `messages`", "neither `messages` nor `prompt`", "columns.prompt")),
    ({"prompt": "a", "messages": []}, ("row 3 (line 4), field `messages`", "both", "keep exactly one")),
    ("[1]", ("row 4 (line 5)", "is not a JSON object")),
    ({"id": "d", "prompt": "a"}, ()),
    ({"id": "d", "prompt": "a"}, ("row 6 (line 7), field `id`", "'d' is the id of row 5 (line 6) too", "ids must be unique")),
    ({"prompt": "a", "tools": [{"name": "w"}]}, ("row 7 (line 8), field `tools[0].input_schema`", "is missing")),
    (
        {"prompt": "a", "tools": [WEATHER | {"name": "a b"}]},
        ("row 8 (line 9), field `tools[0].name`", "'a b'", "1 to 128 of a-z"),
    ),
    (
        {"prompt": "a", "tools": [{"name": "w", "input_schema": {"type": "objekt"}}]},
        ("row 9 (line 10)", "must be an object schema"),
    ),
    ({"prompt": 5}, ("row 10 (line 11), field `prompt`", "must be a string")),
    ({"prompt": "a", "tools": {}}, ("row 11 (line 12), field `tools`", "must be a list of tools")),
    ({"prompt": "a", "params": 3}, ("row 12 (line 13), field `params`", "must be an object")),
    ({"prompt": "a", "expected": {"a": 1}}, ("row 13 (line 14), field `expected`", "any_call")),
    ({"messages": []}, ("row 14 (line 15), field `messages`", "has no message")),
]


def test_every_problem_of_a_dataset_is_named_before_anything_is_sent(shell: Shell) -> None:
    data = shell.write("bad.jsonl", {"prompt": "hello"}, *(row for row, _ in BAD_ROWS))
    with endpoint() as served:
        ended = shell("run", data, "--model", "m", "--base-url", served.base_url)
    assert ended.code == 2
    assert [word for _, words in BAD_ROWS for word in words if word not in ended.err] == []
    assert all("bad.jsonl, row" in line for line in ended.err.splitlines() if line.startswith("error: "))
    assert served.asked == []
    assert ended.out == ""


JOB = """
dataset = "ok.jsonl"
concurency = 3
[limits]
concurency = 3
rpm = "x"
max_cost_usd = nan
[request]
max_tokens = 0
stream = "yes"
[endpoint]
base_url = 3
[gaet]
x = 1
"""


def test_every_problem_of_a_job_is_named_at_once(shell: Shell) -> None:
    shell.write("ok.jsonl", {"prompt": "hello"})
    (shell.folder / "job.toml").write_text(JOB)
    ended = shell("run", "job.toml")
    assert ended.code == 2
    fields = ("concurency", "limits.concurency", "limits.rpm", "limits.max_cost_usd", "request.max_tokens", "request.stream")
    for field in (*fields, "endpoint.base_url", "gaet", "request.model"):
        assert f"error: job.toml, field `{field}`: " in ended.err
    for hint in ("did you mean `concurrency`?", "did you mean `gate`?", "--model MODEL"):
        assert f"hint: {hint}" in ended.err or hint in ended.err


def _files(folder: Path) -> None:
    """Write one file of every wrong kind."""
    noise = os.urandom(4000)
    for name in ("noise.jsonl", "noise.parquet", "noise.jsonl.gz", "noise.toml"):
        (folder / name).write_bytes(b"\x89\x00" + noise)
    (folder / "ok.jsonl").write_text('{"prompt": "hello"}\n')
    (folder / "empty.jsonl").write_text("")
    (folder / "folder").mkdir()
    (folder / "folder.toml").mkdir()
    (folder / "broken.toml").write_text('name = "x\n')
    (folder / "no_dataset.toml").write_text('[request]\nmodel = ["m"]\n')
    (folder / "no_model.toml").write_text('dataset = "ok.jsonl"\n')
    (folder / "no_file.toml").write_text('dataset = "gone.jsonl"\n[request]\nmodel = "m"\n')


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("nowhere.toml", ("nowhere.toml", "no such job file", "batchrun init")),
        ("nowhere.jsonl", ("nowhere.jsonl", "no such file")),
        ("no_file.toml", ("gone.jsonl", "no such file", "relative to the job file")),
        ("folder", ("folder", "holds no data file", ".jsonl")),
        ("folder.toml", ("folder.toml", "cannot be read")),
        ("empty.jsonl", ("empty.jsonl", "no row")),
        ("noise.jsonl", ("noise.jsonl, row 0 (line 1)", "is not valid JSON")),
        ("noise.parquet", ("noise.parquet", "is not a Parquet file")),
        ("noise.jsonl.gz", ("noise.jsonl.gz",)),
        ("noise.toml", ("noise.toml", "cannot be read")),
        ("broken.toml", ("broken.toml", "not valid TOML", "line 1")),
        ("no_dataset.toml", ("no_dataset.toml", "`dataset`", "is missing")),
    ],
)
def test_a_file_that_is_none_of_ours_is_named(shell: Shell, source: str, words: tuple[str, ...]) -> None:
    _files(shell.folder)
    ended = shell("run", source, "--model", "m", "--base-url", "http://127.0.0.1:9")
    assert ended.code == 2
    assert [word for word in words if word not in ended.err] == []
    assert ended.err.startswith("error: ")


@pytest.mark.parametrize("source", ["no_model.toml", "ok.jsonl"])
def test_a_missing_model_says_how_to_name_one(shell: Shell, source: str) -> None:
    _files(shell.folder)
    ended = shell("run", source)
    assert ended.code == 2
    assert "`request.model`: is missing" in ended.err
    assert "--model MODEL" in ended.err


@pytest.mark.parametrize(
    ("assignment", "word"),
    [
        ("x", "--set takes key.path=value"),
        ("=3", "--set takes key.path=value"),
        ("limits.foo=3", "`limits.foo`: is not a field"),
        ("foo.bar=3", "`foo`: is not a field"),
        ("limits.rpm=abc", "`limits.rpm`"),
        ("limits.rpm=-1", "`limits.rpm`"),
        ("limits.rpm=inf", "`limits.rpm`: Expected a finite number"),
        ("limits.max_cost_usd=nan", "`limits.max_cost_usd`: Expected a finite number"),
        ('prices.models=[{model="m",input=nan}]', "`prices.models`: Expected a finite number"),
        ("limits.rpm.x=3", "`limits.rpm`"),
        ("request.model=[]", "`request.model`: is missing"),
        ("endpoint.base_url=nope", "`endpoint.base_url`: must begin with http"),
        ("endpoint.base_url=http://", "endpoint.base_url"),
        ("name=", "`name`"),
        ('endpoint.headers.x-y="a\\nb"', "endpoint.headers"),
        ("request.params.model=x", "use request.model"),
    ],
)
def test_set_takes_no_nonsense(shell: Shell, assignment: str, word: str) -> None:
    data = shell.write("ok.jsonl", {"prompt": "hello"})
    ended = shell("run", data, "--model", "m", "--base-url", "http://127.0.0.1:9", "--set", assignment)
    assert ended.code == 2
    assert word in ended.err


@pytest.mark.parametrize("flags", [("--limit", "0"), ("--limit", "x"), ("--bogus",), ()])
def test_a_wrong_flag_is_a_usage_error(shell: Shell, flags: tuple[str, ...]) -> None:
    shell.write("ok.jsonl", {"prompt": "hello"})
    ended = shell("run", *(("ok.jsonl", "--model", "m", *flags) if flags else ()))
    assert ended.code == 2
    assert "Usage: " in ended.err


def _unreachable(kind: str) -> str:
    """Return an address that nobody answers at."""
    if kind == "name":
        return "http://no-such-host.invalid"
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{closed.getsockname()[1]}"


async def _plain(peer: Peer) -> None:
    """Answer a TLS handshake as an HTTP server does that expects none."""
    await peer.reader.read(1)
    await peer.say(reply(b"", status=400))


@pytest.mark.parametrize(("kind", "tries"), [("port", 1), ("port", 8), ("name", 1), ("tls", 1)])
def test_an_endpoint_that_cannot_be_reached_ends_the_run_soon(shell: Shell, kind: str, tries: int) -> None:
    """Whatever the tries a row has left: no patience mends an address."""
    data = shell.write("ok.jsonl", *({"prompt": f"hello {number}"} for number in range(50)))
    with serving(_plain) as plain:
        base_url = plain.replace("http:", "https:") if kind == "tls" else _unreachable(kind)
        began = time.monotonic()
        flags = ("--base-url", base_url, "--out", "out", "--set", f"limits.max_attempts={tries}")
        ended = shell("run", data, "--model", "m", *flags)
    assert ended.code == 3
    assert time.monotonic() - began < 20
    assert "the endpoint cannot be reached" in ended.err
    assert "batchrun resume out" in ended.err
    assert "--base-url" in ended.err


@pytest.mark.parametrize("transport", ["own", "httpx"])
def test_a_certificate_that_nobody_vouches_for_is_told_with_what_to_set(shell: Shell, transport: str) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    data = shell.write("ok.jsonl", {"prompt": "hello"})
    with serving(_plain, tls=context) as base_url:
        flags = ("--set", "limits.max_attempts=1", "--set", f"endpoint.transport={transport}")
        ended = shell("run", data, "--model", "m", "--base-url", base_url, "--out", "out", *flags)
    assert ended.code == 3
    assert "certificate verify failed" in ended.err
    assert "endpoint.ca_file" in ended.err
    assert "batchrun resume out" in ended.err


@pytest.mark.parametrize(("status", "kind"), [(401, "authentication_error"), (403, "permission_error"), (404, "not_found_error")])
def test_a_refusing_endpoint_ends_the_run_in_its_own_words(shell: Shell, status: int, kind: str) -> None:
    body = b'{"type":"error","error":{"type":"%s","message":"model or key: no"}}' % kind.encode()

    async def refuse(peer: Peer, asked: Asked) -> None:
        del asked
        await peer.say(reply(body, status=status))

    data = shell.write("ok.jsonl", *({"prompt": f"hello {number}"} for number in range(300)))
    with endpoint(refuse) as served:
        ended = shell("run", data, "--model", "m", "--base-url", served.base_url, "--out", "out")
    assert ended.code == 3
    assert "model or key: no" in ended.err
    assert kind in ended.err
    assert len(served.asked) < 100


def _run(shell: Shell, served: Endpoint, out: str | Path) -> tuple[int, str]:
    """Run one row into `out`."""
    data = shell.write("ok.jsonl", {"prompt": "hello"})
    ended = shell("run", data, "--model", "m", "--base-url", served.base_url, "--out", out)
    return ended.code, ended.err


def test_a_folder_of_somebody_else_is_left_alone(shell: Shell) -> None:
    foreign = shell.folder / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("all my work")
    with endpoint() as served:
        code, err = _run(shell, served, "foreign")
        assert (code in {2, 4}, "foreign" in err) == (True, True), err
        assert _run(shell, served, "ok.jsonl")[0] in {2, 4}
        assert _run(shell, served, "/proc/nowhere/out")[0] == 4
    assert served.asked == []
    assert [file.name for file in foreign.iterdir()] == ["thesis.txt"]


def test_a_second_run_of_a_folder_in_use_ends_with_7(shell: Shell) -> None:
    with endpoint() as served:
        with RunFolder.create_at(shell.folder / "out").lock():
            code, err = _run(shell, served, "out")
        assert served.asked == []
        assert code == 7, err
        assert "out" in err
        assert _run(shell, served, "out")[0] == 0


def test_answers_are_what_the_server_says(shell: Shell) -> None:
    """The servers of these tests are well: nothing above passes because they are not."""
    with endpoint() as served:
        assert _run(shell, served, "out")[0] == 0
    assert served.asked[0].line == "POST /v1/messages HTTP/1.1"
