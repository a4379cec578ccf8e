"""Prices that were looked up once: the same card again, without the library, until the library changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchrun.job import Prices
from batchrun.pricing import open_book
from batchrun.pricing.book import Listed, from_library
from batchrun.storage import price_list, user_cache
from batchrun.storage.price_list import NAME, PriceList

MODELS = ["claude-sonnet-4-5", "claude-3-haiku-20240307", "gpt-4o", "deepseek-chat", "anthropic/claude-sonnet-4", "no such model"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "batchrun"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models that the library was asked for."""
    models: list[str] = []

    def look_up(model: str, provider: str) -> Listed:
        models.append(model)
        return from_library(model, provider)

    monkeypatch.setattr(price_list, "from_library", look_up)
    return models


def test_every_card_comes_back_to_the_last_digit_without_the_library(asked: list[str]) -> None:
    first = PriceList()
    for model in MODELS:
        assert first(model, "anthropic") == from_library(model, "anthropic")
    assert asked == MODELS
    again = PriceList()
    for model in MODELS:
        assert repr(again(model, "anthropic")) == repr(from_library(model, "anthropic"))
    assert asked == MODELS


def test_a_book_over_it_is_the_book_over_the_library() -> None:
    spec, at_us = Prices(aliases={"mine": "gpt-4o"}), 1_760_000_000_000_000
    for _ in range(2):
        ours, theirs = open_book(spec, look_up=PriceList()), open_book(spec)
        for model in (*MODELS, "mine"):
            assert ours.worst_case(model, 1000, 100, at_us) == theirs.worst_case(model, 1000, 100, at_us)
        assert ours.snapshot() == theirs.snapshot()


def test_another_provider_is_another_question(asked: list[str]) -> None:
    prices = PriceList()
    assert prices("claude-3-haiku-20240307", "aws") != prices("claude-3-haiku-20240307", "anthropic")
    assert len(asked) == 2


def test_a_changed_library_is_asked_again(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    PriceList()("gpt-4o", "openai")
    monkeypatch.setattr(price_list, "_made_of", lambda: b"8 others")
    PriceList()("gpt-4o", "openai")
    assert asked == ["gpt-4o"] * 2


def test_a_library_without_files_is_asked_every_time(asked: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(price_list, "find_spec", lambda _: None)
    for _ in range(2):
        PriceList()("gpt-4o", "openai")
    assert asked == ["gpt-4o"] * 2
    assert not folder.exists()


def test_a_file_that_is_no_price_list_is_asked_past(asked: list[str]) -> None:
    made_of = price_list._made_of()
    assert made_of is not None
    user_cache.keep(NAME, made_of, b'{"found":{"openai\\ngpt-4o":["r",{"name":4}]}}')
    assert PriceList()("gpt-4o", "openai") == from_library("gpt-4o", "openai")
    assert asked == ["gpt-4o"]


def test_what_other_commands_kept_in_the_meantime_stays(asked: list[str]) -> None:
    one, other = PriceList(), PriceList()
    one("gpt-4o", "openai")
    other("gpt-4o", "openai")
    other("deepseek-chat", "deepseek")
    one("claude-sonnet-4-5", "anthropic")
    last = PriceList()
    for model, provider in (("gpt-4o", "openai"), ("deepseek-chat", "deepseek"), ("claude-sonnet-4-5", "anthropic")):
        last(model, provider)
    assert len(asked) == 3


def test_the_file_does_not_grow_without_end(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(price_list, "MOST", 2)
    prices = PriceList()
    for model in MODELS[:5]:
        prices(model, "anthropic")
    again = PriceList()
    for model in reversed(MODELS[:5]):
        again(model, "anthropic")
    assert asked == [*MODELS[:5], *reversed(MODELS[:4])]  # the last of five is alone in the file
