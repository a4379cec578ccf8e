"""The user's cache: what was kept comes back for the same makings, and everything else is as good as nothing kept."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from batchrun.storage.user_cache import fingerprint, keep, kept


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that things are kept in; it is not there yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "batchrun"


def test_what_was_kept_comes_back_for_the_same_makings_alone(folder: Path) -> None:
    assert kept("a", b"1") is None
    keep("a", b"1", b"content")
    assert kept("a", b"1") == b"content"
    assert kept("a", b"2") is None
    assert kept("a", b"1c") is None
    keep("a", b"2", b"")
    assert kept("a", b"2") == b""
    assert [path.name for path in folder.iterdir()] == ["a"]


def test_it_is_the_users_alone(folder: Path) -> None:
    keep("a", b"1", b"content")
    assert folder.stat().st_mode & 0o077 == 0
    assert (folder / "a").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("mode", [0o720, 0o702])
def test_a_folder_that_others_can_write_to_is_not_used(folder: Path, mode: int) -> None:
    keep("a", b"1", b"content")
    folder.chmod(mode)
    assert kept("a", b"1") is None
    keep("b", b"1", b"content")
    folder.chmod(0o700)
    assert kept("a", b"1") == b"content"
    assert kept("b", b"1") is None


def test_a_folder_of_another_user_is_not_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep("a", b"1", b"content")
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    assert kept("a", b"1") is None
    monkeypatch.delattr(os, "geteuid")  # a system without owners
    assert kept("a", b"1") == b"content"


def test_a_damaged_file_is_as_good_as_none(folder: Path) -> None:
    keep("a", b"1", b"content")
    whole = (folder / "a").read_bytes()
    for cut in range(len(whole)):
        (folder / "a").write_bytes(whole[:cut])
        assert kept("a", b"1") is None, cut
        (folder / "a").write_bytes(whole[:cut] + bytes([whole[cut] ^ 1]) + whole[cut + 1 :])
        assert kept("a", b"1") is None, cut


def test_a_folder_that_cannot_be_keeps_nothing_and_nobody_hears_of_it(folder: Path) -> None:
    folder.write_text("a file in the folder's place")
    keep("a", b"1", b"content")
    assert kept("a", b"1") is None


def test_a_file_that_cannot_be_replaced_leaves_nothing_behind(folder: Path) -> None:
    (folder / "a").mkdir(parents=True)
    keep("a", b"1", b"content")
    assert kept("a", b"1") is None
    assert [path.name for path in folder.iterdir()] == ["a"]


def test_it_is_in_the_home_folder_where_no_other_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, says the XDG specification
    keep("a", b"1", b"content")
    assert (tmp_path / ".cache" / "batchrun" / "a").exists()
    assert kept("a", b"1") == b"content"
    monkeypatch.setenv("HOME", str(tmp_path / "missing"))
    keep("b", b"1", b"content")
    assert not (tmp_path / "missing").exists()
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # what it returns where there is no home
    keep("b", b"1", b"content")
    assert kept("b", b"1") is None


def test_a_fingerprint_is_of_all_contents(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"ab")
    other.write_bytes(b"c")
    first = fingerprint([one, other])
    assert first == fingerprint([one, other])
    other.write_bytes(b"d")
    assert fingerprint([one, other]) != first
    assert fingerprint([one, tmp_path / "missing"]) is None
