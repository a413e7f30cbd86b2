"""What to recover to, and from which backup: pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from ansible_collections.cryptopip.marketdata.plugins.module_utils.base_backup.model import (
    Backup,
    BackupError,
    Listing,
)
from ansible_collections.cryptopip.marketdata.plugins.module_utils.base_backup.target import (
    RECOVERY_SETTINGS,
    choose_backup,
    conf_text,
    parse_target,
    settings,
)

START = datetime(2026, 11, 27, tzinfo=UTC)


def backup(name: str, hours: int, stop_lsn: str, verified: bool | None = True) -> Backup:
    """One that ended so many hours after midnight."""
    end = START + timedelta(hours=hours)
    return Backup(name, "wal_e", "7", 1, "0/1", stop_lsn, end, end, 1, verified, None)


OLD, MIDDLE, TORN = backup("old", 1, "0/100"), backup("middle", 5, "1/0", None), backup("torn", 9, "2/0", False)
LISTING = Listing((OLD, MIDDLE, TORN))


@pytest.mark.parametrize(
    ("text", "kind", "meant", "chosen"),
    [
        ("latest", "latest", "latest", MIDDLE),
        ("2026-11-27 05:00:00", "time", "2026-11-27 05:00:00.000000+00:00", MIDDLE),
        ("2026-11-27T05:59:59.5+01:00", "time", "2026-11-27 04:59:59.500000+00:00", OLD),
        ("2026-11-28", "time", "2026-11-28 00:00:00.000000+00:00", MIDDLE),
        ("0/ffffffff", "lsn", "0/FFFFFFFF", OLD),
        ("1/0", "lsn", "1/0", MIDDLE),
        ("torn", "backup", "torn", TORN),
        ("before the change", "name", "before the change", OLD),
    ],
)
def test_a_target_is_told_by_its_form_and_gets_the_newest_backup_before_it(
    text: str, kind: str, meant: str, chosen: Backup
) -> None:
    target = parse_target(text, LISTING)
    assert (target.kind, target.text) == (kind, meant)
    assert choose_backup(LISTING, target, None) == chosen


@pytest.mark.parametrize("text", ["", "  ", "2026-13-01", "x" * 64])
def test_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(BackupError) as caught:
        parse_target(text, LISTING)
    assert caught.value.code == "usage"


@pytest.mark.parametrize(
    ("text", "wanted", "code"),
    [
        ("2026-11-27 00:30", None, "not_found"),
        ("0/FF", None, "not_found"),
        ("latest", "never made", "not_found"),
        ("2026-11-27 04:00", "middle", "usage"),
        ("old", "middle", "usage"),
    ],
)
def test_a_target_out_of_reach_is_refused(text: str, wanted: str | None, code: str) -> None:
    with pytest.raises(BackupError) as caught:
        choose_backup(LISTING, parse_target(text, LISTING), wanted)
    assert caught.value.code == code


def test_a_named_backup_is_taken_whatever_was_found_of_it() -> None:
    assert choose_backup(LISTING, parse_target("latest", LISTING), "torn") == TORN


ABANDONED, SECOND = backup("abandoned", 6, "3/0"), replace(backup("second", 7, "2/10"), timeline=2)
FORKED = Listing((OLD, MIDDLE, ABANDONED, SECOND))


@pytest.mark.parametrize(
    ("timeline", "text", "chosen"),
    [
        ("latest", "latest", SECOND),
        ("1", "latest", ABANDONED),
        ("2", "latest", SECOND),
        ("2", "2026-11-27 05:30", MIDDLE),
        ("3", "latest", SECOND),
        ("1", "old", OLD),
    ],
)
def test_a_timeline_is_reached_from_its_own_backups_else_from_those_before_it(
    timeline: str, text: str, chosen: Backup
) -> None:
    target = parse_target(text, FORKED)
    assert choose_backup(FORKED, target, None, timeline) == chosen
    expected = "current" if text == "old" else timeline
    assert settings(target, "fetch %f %p", "pause", timeline)["recovery_target_timeline"] == expected


@pytest.mark.parametrize(
    ("timeline", "text", "wanted", "code"),
    [
        ("0", "latest", None, "usage"),
        ("newest", "latest", None, "usage"),
        ("1", "latest", "second", "usage"),
        ("2", "old", None, "usage"),
        ("1", "2026-11-27 00:30", None, "not_found"),
    ],
)
def test_a_timeline_out_of_reach_is_refused(timeline: str, text: str, wanted: str | None, code: str) -> None:
    with pytest.raises(BackupError) as caught:
        choose_backup(FORKED, parse_target(text, FORKED), wanted, timeline)
    assert caught.value.code == code


@pytest.mark.parametrize("text", ["latest", "2026-11-28", "0/FF", "old", "it's here"])
def test_the_settings_never_archive_and_a_promotion_knows_them_all(text: str) -> None:
    values = settings(parse_target(text, LISTING), "fetch %f %p", "pause")
    assert values["archive_mode"] == "off"
    assert set(values) <= set(RECOVERY_SETTINGS)
    assert values["recovery_target_timeline"] == ("current" if text == "old" else "latest")
    assert ("recovery_target_action" in values) == (text != "latest")
    assert sum(name.startswith("recovery_target") for name in values) == (1 if text == "latest" else 3)
    if text == "it's here":
        assert "recovery_target_name = 'it''s here'\n" in conf_text(values)
