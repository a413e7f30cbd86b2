"""What a state asks for, given the backups there are: pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from ansible_collections.cryptopip.marketdata.plugins.module_utils.base_backup.model import (
    Backup,
    BackupError,
    Listing,
)
from ansible_collections.cryptopip.marketdata.plugins.module_utils.base_backup.plan import (
    Steps,
    duration,
    newest_verified,
    plan_present,
    plan_verified,
    without,
)

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def backup(age_h: float, verified: bool | None, read_h_ago: float | None = None) -> Backup:
    """One that ended ``age_h`` hours ago."""
    end = NOW - timedelta(hours=age_h)
    read = None if read_h_ago is None else NOW - timedelta(hours=read_h_ago)
    return Backup(f"b{age_h:g}", "wal_e", "7", 1, "0/1", "0/2", end, end, 1, verified, read)


@pytest.mark.parametrize(
    ("backups", "steps"),
    [
        ([], Steps(take=True)),
        ([backup(30, True)], Steps(take=True)),
        ([backup(24, True)], Steps()),
        ([backup(30, True), backup(2, False)], Steps(take=True)),
        ([backup(3, True), backup(2, False)], Steps()),
        ([backup(3, True), backup(2, None)], Steps()),
        ([backup(30, True), backup(3, None), backup(2, None)], Steps(verify="b2", take=True)),
        ([backup(30, None)], Steps(take=True)),
    ],
)
def test_only_a_young_verified_backup_spares_a_new_one(backups: list[Backup], steps: Steps) -> None:
    assert plan_present(Listing(tuple(backups)), NOW, DAY, verify=True) == steps
    unread = plan_present(Listing(tuple(backups)), NOW, DAY, verify=False)
    assert unread == Steps(take=steps.take)


def test_the_newest_or_the_named_is_read_unless_it_was_read_lately() -> None:
    listing = Listing(
        (backup(30, True, read_h_ago=1), backup(2, True, read_h_ago=48), backup(1, False, read_h_ago=0.5))
    )
    assert plan_verified(listing, None, NOW, DAY) == Steps(verify="b1")  # found corrupt: read again
    assert plan_verified(listing, "b30", NOW, DAY) == Steps()
    assert plan_verified(listing, "b2", NOW, DAY) == Steps(verify="b2")
    for found, name in ((listing, "b9"), (Listing(()), None)):
        with pytest.raises(BackupError) as caught:
            plan_verified(found, name, NOW, DAY)
        assert caught.value.code == "not_found"


def test_what_stays_and_which_is_the_newest_verified() -> None:
    listing = Listing((backup(30, True), backup(2, True), backup(1, False)), ("lost",))
    assert newest_verified(listing) == listing.backups[1]
    assert without(listing, ("b30", "b1")) == Listing((listing.backups[1],), ("lost",))


@pytest.mark.parametrize(("text", "hours"), [("36h", 36), ("2d", 48), ("1w", 168), ("90m", 1.5), ("0s", 0)])
def test_a_duration_carries_its_unit(text: str, hours: float) -> None:
    assert duration(text, "max_age") == timedelta(hours=hours)


@pytest.mark.parametrize("text", ["36", "h", "-1h", "1.5h", "1y", ""])
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(BackupError, match="max_age is"):
        duration(text, "max_age")
