"""What pgBackRest 2.55 answers, read as backups, gaps and problems. The answers are recorded ones."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from ansible_collections.cryptopip.marketdata.plugins.module_utils.base_backup import pgbackrest
from ansible_collections.cryptopip.marketdata.plugins.module_utils.base_backup.model import BackupError, Listing
from ansible_collections.cryptopip.marketdata.plugins.module_utils.base_backup.process import Finished
from hypothesis import given
from hypothesis import strategies as st

FULL, INCREMENTAL = "20261127-164957F", "20261127-164957F_20261127-165011I"
INFO_2_55 = (
    '[{"archive":[{"database":{"id":1,"repo-key":1},"id":"17-1","max":"000000010000000000000008",'
    '"min":"000000010000000000000001"}],"backup":[{"annotation":{"cryptopip-verified":"yes 2026-11-27T16:50:20Z"},'
    '"archive":{"start":"000000010000000000000002","stop":"000000010000000000000003"},"backrest":{"format":5,'
    '"version":"2.55.1"},"database":{"id":1,"repo-key":1},"error":false,"info":{"delta":23438107,"repository":'
    '{"delta":4540352,"delta-map":24768,"size-map":24768},"size":23438107},"label":"20261127-164957F","lsn":'
    '{"start":"0/2000028","stop":"0/3000050"},"prior":null,"reference":null,"timestamp":{"start":1795798197,'
    '"stop":1795798203},"type":"full"},{"archive":{"start":"000000010000000000000007","stop":'
    '"000000010000000000000008"},"backrest":{"format":5,"version":"2.55.1"},"database":{"id":1,"repo-key":1},'
    '"error":false,"info":{"delta":663810,"repository":{"delta":4760,"delta-map":544,"size-map":24800},"size":23438108},'
    '"label":"20261127-164957F_20261127-165011I","lsn":{"start":"0/7000028","stop":"0/8000050"},"prior":'
    '"20261127-164957F","reference":["20261127-164957F"],"timestamp":{"start":1795798211,"stop":1795798215},"type":'
    '"incr"}],"cipher":"aes-256-cbc","db":[{"id":1,"repo-key":1,"system-id":7712894438641897510,"version":"17"}],'
    '"name":"cryptopip","repo":[{"cipher":"aes-256-cbc","key":1,"status":{"code":0,"message":"ok"}}],"status":{"code":0,'
    '"lock":{"backup":{"held":false}},"message":"ok"}}]'
)
VERIFY_2_55 = """stanza: cryptopip
status: error
  archiveId: 17-1, total WAL checked: 11, total valid WAL: 10
    missing: 0, checksum invalid: 0, size invalid: 0, other: 1
  backup: 20261127-164957F, status: invalid, total files checked: 970, total valid files: 969
    missing: 0, checksum invalid: 1, size invalid: 0, other: 0
  backup: 20261127-164957F_20261127-165011I, status: valid, total files checked: 970, total valid files: 970
    missing: 0, checksum invalid: 0, size invalid: 0, other: 0
"""
VERIFY_2_55_LOG = """P02   INFO: invalid checksum '20261127-164957F/bundle/1'
P02   INFO: file missing '20261127-164957F/bundle/2'
P02   INFO: file missing '20261127-164957F/bundle/2'
P01   INFO: invalid result 17-1/0000000100000000/000000010000000000000006-37.lz4: [29] raised from local-1 protocol: lz4
"""
SEGMENT_BYTES = 16 << 20


def name(number: int, timeline: int = 1) -> str:
    return f"{timeline:08X}{number // 256:08X}{number % 256:08X}"


def test_a_list_is_read() -> None:
    stanza = pgbackrest.parse_info(INFO_2_55)
    full, incremental = stanza.listing.backups
    assert (full.name, full.verified, full.requires) == (FULL, True, ())
    assert (incremental.name, incremental.verified, incremental.requires) == (INCREMENTAL, None, (FULL,))
    assert (full.system_identifier, full.timeline, full.start_lsn, full.size_bytes) == (
        "7712894438641897510",
        1,
        "0/2000028",
        4540352,
    )
    assert full.duration_s == 6
    assert stanza.segments[FULL] == (name(2), name(3))


def test_a_repository_that_is_not_there_is_no_empty_list() -> None:
    info = json.loads(INFO_2_55)
    info[0]["status"] = {"code": 1, "message": "missing stanza path"}
    with pytest.raises(BackupError, match="mounted") as refused:
        pgbackrest.parse_info(json.dumps(info))
    assert refused.value.code == "store"


@pytest.mark.parametrize("text", ["", "[]", "{}", "null"])
def test_what_is_no_list_is_refused(text: str) -> None:
    with pytest.raises(BackupError, match="expected JSON"):
        pgbackrest.parse_info(text)


def test_findings_are_those_of_the_backup_and_of_what_it_requires() -> None:
    done = Finished(0, VERIFY_2_55, VERIFY_2_55_LOG.replace("-37.", f"-{'a' * 40}."))
    problems = pgbackrest.parse_verify(done, [FULL, INCREMENTAL], name(2))
    assert [problem.object for problem in problems] == [
        f"{FULL}/bundle/1",
        f"{FULL}/bundle/2",
        f"17-1/0000000100000000/{name(6)}-{'a' * 40}.lz4",
    ]
    assert pgbackrest.parse_verify(done, [INCREMENTAL], name(7)) == []


def test_a_backup_that_is_not_said_to_be_valid_has_a_problem_even_without_a_finding() -> None:
    (problem,) = pgbackrest.parse_verify(Finished(0, VERIFY_2_55, ""), [FULL], name(7))
    assert (problem.object, problem.problem) == (FULL, "invalid")


@pytest.mark.parametrize("said", ["", "stanza: cryptopip\nstatus: ok\n", VERIFY_2_55.replace(FULL, "another")])
def test_a_verification_that_does_not_speak_of_the_backup_is_none(said: str) -> None:
    with pytest.raises(BackupError, match="pgbackrest verify"):
        pgbackrest.parse_verify(Finished(0, said, ""), [FULL], name(2))


@given(st.sets(st.integers(250, 270), min_size=1), st.integers(250, 260), st.integers(0, 5))
def test_every_missing_segment_is_told_and_no_other(numbers: set[int], first: int, more: int) -> None:
    archived = [*(name(number) for number in numbers), name(999, timeline=2)]
    found = pgbackrest.gaps(archived, name(first), name(first + more), SEGMENT_BYTES)
    last = max(first + more, *numbers)
    assert found == [name(number) for number in range(first, last + 1) if number not in numbers]


def test_archived_files_are_told_by_name() -> None:
    paths: dict[str, dict[str, str]] = {
        "17-1/0000000100000000/000000010000000000000001-" + "a" * 40 + ".lz4": {},
        "17-1/0000000100000000/000000010000000000000002.00000028.backup": {},
        "17-1/00000002.history": {},
        "archive.info": {},
    }
    assert pgbackrest.parse_archive(json.dumps(paths)) == [name(1), f"{name(2)}.00000028.backup"]


@pytest.mark.parametrize(
    ("days", "corrupt", "is_full"), [(1, None, False), (8, None, True), (1, 0, True), (1, 1, True)]
)
def test_a_backup_is_full_by_age_or_where_it_would_build_on_a_corrupt_one(
    days: int, corrupt: int | None, is_full: bool
) -> None:
    backups = list(pgbackrest.parse_info(INFO_2_55).listing.backups)
    assert pgbackrest.is_full_due(Listing(()), backups[0].finished_at)
    if corrupt is not None:
        backups[corrupt] = replace(backups[corrupt], verified=False)
    now = backups[0].finished_at + timedelta(days=days)
    assert pgbackrest.is_full_due(Listing(tuple(backups)), now) == is_full


def test_what_a_kept_backup_requires_stays() -> None:
    stanza = pgbackrest.parse_info(INFO_2_55)
    kept = pgbackrest.closure(stanza.listing, [INCREMENTAL])
    assert kept == [FULL, INCREMENTAL]
    removal = pgbackrest.plan_removal(stanza, kept, [name(1), name(2), name(1, 2), name(9)])
    assert (removal.removed, removal.removed_wal) == ((), (name(1), name(1, 2)))
