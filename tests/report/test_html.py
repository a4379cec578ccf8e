"""Templates are compiled once for all commands of a user, and the page is the same from a kept one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import jinja2
import pytest

from batchrun.report import html


@pytest.fixture
def compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str | None]]:
    """The templates that were compiled, in a cache of the test's own."""
    names: list[str | None] = []
    generate = jinja2.Environment._generate

    def counting(self: jinja2.Environment, source: jinja2.nodes.Template, name: str | None, *rest: object, **more: object) -> str:
        names.append(name)
        return generate(self, source, name, *rest, **more)  # type: ignore[arg-type]  # handed on as they came

    monkeypatch.setattr(jinja2.Environment, "_generate", counting)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    html.environment.cache_clear()
    yield names
    html.environment.cache_clear()


def page() -> str:
    """What the next command would make of a template."""
    html.environment.cache_clear()
    return html.environment().get_template("macros.html").render()


def test_a_template_is_compiled_by_the_first_command_alone(compiled: list[str]) -> None:
    first = page()
    assert compiled == ["macros.html"]
    assert page() == first
    assert compiled == ["macros.html"]


def test_a_damaged_cache_is_compiled_past(compiled: list[str], tmp_path: Path) -> None:
    first = page()
    for kept in (tmp_path / "batchrun").iterdir():
        kept.write_bytes(kept.read_bytes()[:-1])
    assert page() == first
    assert compiled == ["macros.html"] * 2


def test_another_jinja_compiles_anew(compiled: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    page()
    monkeypatch.setattr(jinja2, "__version__", "99")
    page()
    assert compiled == ["macros.html"] * 2


def test_without_a_cache_it_is_compiled_every_time(compiled: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "batchrun").write_text("a file in the folder's place")
    assert page() == page()
    monkeypatch.setattr("batchrun.report.html.user_cache.fingerprint", lambda _: None)
    page()
    assert compiled == ["macros.html"] * 3
