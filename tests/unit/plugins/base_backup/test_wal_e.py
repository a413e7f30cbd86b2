"""What the sidecar answers, as backups and errors: on answers of the sidecar of this release."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from ansible_collections.cryptopip.marketdata.plugins.module_utils.base_backup.model import (
    Backup,
    BackupError,
    Problem,
    Removal,
)
from ansible_collections.cryptopip.marketdata.plugins.module_utils.base_backup.process import Finished
from ansible_collections.cryptopip.marketdata.plugins.module_utils.base_backup.wal_e import (
    parse_answer,
    parse_listing,
    parse_removal,
)

ROW = {
    "name": "base_000000010000000000000003_00000040",
    "start_lsn": "0/3000028",
    "stop_lsn": "0/3000158",
    "started_at": "2026-11-27T10:00:00.000000Z",
    "finished_at": "2026-11-27T10:00:08.500000Z",
    "size_bytes": 4711,
    "timeline": 1,
    "system_identifier": "7441",
    "verified": None,
    "verified_at": None,
}


def test_a_row_is_a_backup() -> None:
    (backup,) = parse_listing({"backups": [ROW], "unreadable": ["base_x"]}).backups
    started = datetime(2026, 11, 27, 10, tzinfo=UTC)
    assert backup == Backup(
        name="base_000000010000000000000003_00000040",
        engine="wal_e",
        system_identifier="7441",
        timeline=1,
        start_lsn="0/3000028",
        stop_lsn="0/3000158",
        started_at=started,
        finished_at=datetime(2026, 11, 27, 10, 0, 8, 500_000, tzinfo=UTC),
        size_bytes=4711,
        verified=None,
        verified_at=None,
    )
    assert backup.duration_s == 8.5
    assert backup.facts() == {**ROW, "engine": "wal_e", "requires": [], "duration_s": 8.5}


def test_a_removal_tells_what_stays() -> None:
    other = {**ROW, "name": "base_000000010000000000000008_00000040"}
    listing = parse_listing({"backups": [ROW, other], "unreadable": []})
    answer = {"removed": [ROW["name"]], "removed_wal": ["000000010000000000000003"]}
    assert parse_removal(answer, listing) == Removal(
        (str(other["name"]),), (str(ROW["name"]),), ("000000010000000000000003",)
    )


@pytest.mark.parametrize(
    ("done", "code", "said"),
    [
        (
            Finished(
                1,
                json.dumps({"error": "corrupt", "msg": "it is torn", "problems": [{"object": "a", "problem": "b"}]}),
                "",
            ),
            "corrupt",
            "it is torn",
        ),
        (Finished(124, "", "not done after 3 s, given up\n"), "deadline", "given up"),
        (Finished(1, "", "Traceback\nboom\n"), "engine", "boom"),
        (Finished(0, "not JSON", ""), "engine", "expected this release's JSON"),
    ],
)
def test_what_is_no_answer_is_an_error(done: Finished, code: str, said: str) -> None:
    with pytest.raises(BackupError, match=said) as caught:
        parse_answer(done, "cryptopip-wale verify x")
    assert caught.value.code == code
    assert caught.value.problems == ((Problem("a", "b"),) if code == "corrupt" else ())


@pytest.mark.parametrize("answer", [{"backups": [], "unreadable": []}, {"removed": []}])
def test_an_answer_is_given_on(answer: dict[str, Any]) -> None:
    assert parse_answer(Finished(0, json.dumps(answer), "progress: 1 of 2\n"), "x") == answer
