"""What a killed session had in flight: known to the next one, never less than it was."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from batchrun.errors import StorageError
from batchrun.records import Attempt
from batchrun.storage.in_flight import InFlight, left_in_flight
from batchrun.storage.journal import Journal

MakeAttempt = Callable[..., Attempt]


def test_an_outcome_counts_as_known_once_the_journal_has_written_it(tmp_path: Path, attempt: MakeAttempt) -> None:
    with Journal(tmp_path) as journal, InFlight(journal) as in_flight:
        for worst in ("0.5", "0.25", "0.000000125"):
            in_flight.sent(Decimal(worst))
        assert left_in_flight(tmp_path) == Decimal("0.750000125")
        in_flight.ended(Decimal("0.5"))
        in_flight.sent(Decimal("0.1"))
        assert left_in_flight(tmp_path) == Decimal("0.850000125"), "it has ended and is not appended yet"
        journal.append(attempt(0))
        journal.flush()
        in_flight.sent(Decimal("0.1"))
        assert left_in_flight(tmp_path) == Decimal("0.450000125")


def test_an_orderly_end_leaves_nothing_and_every_killed_session_its_own(tmp_path: Path) -> None:
    for worst in ("0.5", "0.25"):
        with Journal(tmp_path) as journal:
            InFlight(journal).sent(Decimal(worst))
    with Journal(tmp_path) as journal, InFlight(journal) as in_flight:
        in_flight.sent(Decimal(1))
    assert left_in_flight(tmp_path) == Decimal("0.75")
    assert left_in_flight(tmp_path / "none") == 0


@pytest.mark.parametrize("content", [bytes(48), b"abc", b"\xff" * 48, b"-1", b"NaN", b"1.5\0", b"1e9"])
def test_an_amount_that_a_power_cut_has_taken_is_a_storage_error_that_says_what_to_remove(tmp_path: Path, content: bytes) -> None:
    """It is not known, so it is neither nothing nor something: the budget goes without it where the user says so."""
    (tmp_path / ".local-000001-aabb.in_flight").write_bytes(b"0.5".ljust(48))
    (tmp_path / ".local-000002-aabb.in_flight").write_bytes(b"")  # killed before its first call
    lost = tmp_path / ".local-000003-aabb.in_flight"
    lost.write_bytes(content)
    with pytest.raises(StorageError, match=r"000003-aabb\.in_flight: is damaged") as raised:
        left_in_flight(tmp_path)
    assert f"rm {lost}" in (raised.value.hint or "")
    lost.unlink()
    assert left_in_flight(tmp_path) == Decimal("0.5")


def test_a_folder_that_is_gone_is_a_storage_error(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.close()
    (tmp_path / "journal").rmdir()
    with pytest.raises(StorageError, match="in_flight"):
        InFlight(journal)
