"""The restore journal on a real file system."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.cryptopip.marketdata.plugins.module_utils.tuned_restore.journal import (
    NAME,
    Journal,
    JournalError,
    Phase,
    enter,
    read_journal,
    remove_journal,
    this_boot,
    write_journal,
)
from ansible_collections.cryptopip.marketdata.plugins.module_utils.tuned_restore.settings import Change

FSYNC = Change("fsync", "off", "on", None)
JOURNAL = Journal(
    system_identifier="7",
    boot_id="boot",
    container="db",
    database="lake",
    restoring="lake_restoring",
    replaced=None,
    drop_replaced=False,
    checksum="ab",
    archive_hole=True,
    changes=(FSYNC, Change("archive_mode", "off", "on", "always", needs_restart=True)),
)


def test_what_is_written_is_read_back_until_it_is_removed(tmp_path: Path) -> None:
    assert read_journal(tmp_path) is None
    write_journal(tmp_path, JOURNAL)
    assert read_journal(tmp_path) == JOURNAL
    moved = enter(tmp_path, JOURNAL, Phase.DATA)
    assert read_journal(tmp_path) == moved == replace(JOURNAL, phase=Phase.DATA)
    remove_journal(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_was_cut_off_leaves_the_journal_before_it(tmp_path: Path) -> None:
    write_journal(tmp_path, JOURNAL)
    (tmp_path / f"{NAME}.new").write_text('{"format": 1, "sys')
    assert read_journal(tmp_path) == JOURNAL
    remove_journal(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 1}', '{"format": 1, "changes": [{}], "phase": "data"}'])
def test_a_broken_journal_is_told_of_and_never_taken_for_none(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_text(text)
    with pytest.raises(JournalError, match="is no restore journal"):
        read_journal(tmp_path)


def test_another_releases_journal_is_left_to_it(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text('{"format": 2}')
    with pytest.raises(JournalError, match="another release"):
        read_journal(tmp_path)


@pytest.mark.parametrize("phase", list(Phase))
def test_a_new_boot_makes_the_cluster_suspect_only_between_fsync_off_and_the_flush(phase: Phase) -> None:
    journal = replace(JOURNAL, phase=phase)
    unharmed = {Phase.PREPARED, Phase.FLUSHED, Phase.SWAPPING}
    assert journal.is_suspect("boot") is (phase is Phase.SUSPECT)
    assert journal.is_suspect("another boot") is (phase not in unharmed)
    safe = replace(journal, changes=())
    assert safe.is_suspect("another boot") is (phase is Phase.SUSPECT)
    kept = replace(journal, changes=(replace(FSYNC, value="on"),))
    assert kept.is_suspect("another boot") is (phase is Phase.SUSPECT)


def test_this_boot_is_the_same_for_as_long_as_the_host_runs() -> None:
    assert this_boot() == this_boot() != ""
