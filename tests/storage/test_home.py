"""Where workers land on this machine and on others, and how what they land there comes back."""

from __future__ import annotations

import os
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from batchrun.errors import StorageError, UsageError
from batchrun.records import Attempt
from batchrun.storage import places
from batchrun.storage.folder import RunFolder
from batchrun.storage.home import MARK_NAME, Desk, Home, home_of
from batchrun.storage.in_flight import InFlight, left_in_flight
from batchrun.storage.index import JournalIndex
from batchrun.storage.journal import Journal
from batchrun.storage.lock import Lock
from batchrun.storage.mirror import ALIVE_NAME, Mirror, pull, pull_journal, send_left, spool_folder, workers_folder

MakeAttempt = Callable[..., Attempt]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket's folder, which is one of this disk, and a spool of this test alone."""
    monkeypatch.setenv("BATCHRUN_SPOOL", str(tmp_path / "spool"))
    return str(tmp_path / "bucket" / "run")


def run_folder(path: Path) -> Path:
    path.mkdir()
    return path


def landed(folder: Path) -> list[int]:
    with JournalIndex(folder / "journal", seal=False) as index:
        return [ordinal for ordinal in range(20) if index.landed(ordinal)]


def land(desk: Desk, *attempts: Attempt) -> Journal:
    journal = desk.folder.open_journal(desk.writer)
    for attempt in attempts:
        journal.append(attempt)
    journal.flush()
    return journal


def test_who_sees_the_drivers_mark_writes_beside_it(tmp_path: Path, attempt: MakeAttempt) -> None:
    """On the driver's machine, and through a shared file system; the mark is gone with the driver."""
    folder = run_folder(tmp_path / "run")
    with home_of(folder, None) as home:
        desk = Desk(home, "w1")
        land(desk, attempt(3)).close()
        desk.send()
        desk.close()
    assert sorted(path.name for path in folder.rglob("*")) == ["journal", "w1-000001.idx", "w1-000001.journal"]
    assert landed(folder) == [3]


def test_a_folder_of_the_same_name_is_not_the_drivers(tmp_path: Path) -> None:
    """Nothing there, a mark of an earlier session, a mark that is no text: what lands there would never reach the run."""
    folder = run_folder(tmp_path / "run")
    home = Home(folder=str(folder), mark="now")
    for content in (None, b"before", b"\xff"):
        if content is not None:
            (folder / MARK_NAME).write_bytes(content)
        with pytest.raises(UsageError, match=r"does not see the run's folder .*/run") as refused:
            Desk(home, "w1")
        assert "s3://" in (refused.value.hint or "")
    (folder / MARK_NAME).write_bytes(b"now")
    Desk(home, "w1").close()


def test_a_worker_elsewhere_copies_its_segments_to_the_bucket(tmp_path: Path, place: str, attempt: MakeAttempt) -> None:
    """What it has sent is the run's, wherever it is pulled to; on its own machine nothing is left in the end."""
    folder = run_folder(tmp_path / "run")
    places.upload(_file(tmp_path / "lock", b"the driver's"), places.join(place, "lock"))
    desk = Desk(Home(folder="/nowhere/run", mark="5e55", place=place), "w2")
    assert desk.folder.path == workers_folder(spool_folder(place, os.environ)) / "w2-5e55"
    journal = land(desk, attempt(4))
    desk.send()
    pull_journal(place, folder)
    assert landed(folder) == [4]
    journal.append(attempt(5))
    journal.close()
    desk.close()
    desk.close()
    assert not desk.folder.path.exists()
    assert places.exists(places.join(place, "lock")), "it is the driver's to remove"
    pull_journal(place, folder)
    assert landed(folder) == [4, 5]


def test_the_drivers_copy_of_a_segment_never_replaces_the_writers(tmp_path: Path, place: str, attempt: MakeAttempt) -> None:
    """Pulled in between, it is the shorter one; what the driver's own machine lands goes up all the same."""
    folder = run_folder(tmp_path / "run")
    desk = Desk(Home(folder="/nowhere/run", mark="5e55", place=place), "w2")
    journal = land(desk, attempt(1))
    desk.send()
    with Mirror(folder, place, every_s=60) as mirror:
        pull_journal(place, folder)
        with RunFolder(folder).open_journal("w1") as own:
            own.append(attempt(2))
            own.flush()
            journal.append(attempt(3))
            journal.close()
            desk.close()
            assert mirror.push() == 1
    pull_journal(place, tmp_path / "elsewhere")
    assert landed(tmp_path / "elsewhere") == [1, 2, 3]


def test_what_could_not_be_copied_is_kept_and_goes_up_later(
    tmp_path: Path, place: str, attempt: MakeAttempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bucket is out of reach when a worker ends, another one is killed, a third is alive, and a driver's spool is left."""
    home = Home(folder="/nowhere/run", mark="5e55", place=place)
    spool, out_of_reach = spool_folder(place, os.environ), places.upload

    def refuse(path: Path, there: str) -> None:
        del path
        raise StorageError(f"{there}: no network")

    ended, killed, alive = (Desk(home, name) for name in ("w1", "w2", "w3"))
    journals = [land(desk, attempt(ordinal)) for ordinal, desk in enumerate((ended, killed, alive), 1)]
    monkeypatch.setattr(places, "upload", refuse)
    journals[0].close()
    with pytest.raises(StorageError, match="no network"):
        ended.close()
    monkeypatch.setattr(places, "upload", out_of_reach)
    InFlight(journals[1]).sent(Decimal("0.25"))
    killed._held.close()  # as the system lets go of a dead process's lock
    with RunFolder(spool).open_journal("w4-0ld") as journal:
        journal.append(attempt(4))
    pull(place, tmp_path / "elsewhere")
    assert landed(tmp_path / "elsewhere") == [], "nothing is left where that run is spooled"
    assert send_left(place, spool) == 3
    pull(place, tmp_path / "elsewhere")
    assert landed(tmp_path / "elsewhere") == [1, 2, 4]
    assert left_in_flight(tmp_path / "elsewhere" / "journal") == Decimal("0.25"), "calls of the killed one may have been billed"
    assert [path.name for path in workers_folder(spool).iterdir()] == ["w3-5e55"]
    assert (spool / "journal" / "w4-0ld-000001.journal").exists()
    with Lock(spool / "lock"):
        assert send_left(place, spool) == 0, "a driver is at work there"
    with pytest.raises(StorageError, match="was removed"):  # a killed one closes nothing: this one finds what it wrote sent off
        journals[1].close()
    journals[2].close()
    alive.close()
    assert not (alive.folder.path / ALIVE_NAME).exists()


def test_an_index_tells_another_one_what_has_landed(tmp_path: Path, attempt: MakeAttempt) -> None:
    """That one has no journal; a row that is to be asked again has not landed, and what it hears adds up."""
    with Journal(tmp_path) as journal:
        for ordinal in (0, 9, 17):
            journal.append(attempt(ordinal))
        journal.append(attempt(5, status="errored"))
    other = JournalIndex(None)
    assert not other.landed(0)
    other.hear(JournalIndex(None).told())
    with JournalIndex(tmp_path, again={"errored"}) as index:
        other.hear(index.told())
    assert [ordinal for ordinal in range(30) if other.landed(ordinal)] == [0, 9, 17]
    with JournalIndex(tmp_path) as index:
        other.hear(index.told())
    assert [ordinal for ordinal in range(30) if other.landed(ordinal)] == [0, 5, 9, 17]
    assert other.count == 4


def _file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
