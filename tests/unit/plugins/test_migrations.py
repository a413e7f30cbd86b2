"""Reading migrations and planning them: pure."""

from __future__ import annotations

import hashlib

import pytest
from ansible_collections.cryptopip.marketdata.plugins.module_utils.migrations import (
    Migration,
    MigrationError,
    Row,
    Step,
    describe,
    ledger_after,
    ledger_text,
    pending,
    plan_migrations,
    read_header,
    read_migrations,
)
from hypothesis import given
from hypothesis import strategies as st


def files(*names: str, community: tuple[str, ...] = ()) -> dict[str, bytes]:
    """A folder of migrations, each a comment and a statement."""
    made: dict[str, bytes] = {}
    for name in names:
        edition = "community" if name in community else "any"
        made[f"{name}.up.sql"] = f"-- {name}: a test.\n-- edition: {edition}   locks: none\nSELECT '{name}';\n".encode()
        made[f"{name}.down.sql"] = f"-- {name}: back.\nSELECT 0;\n".encode()
    return made


def row(migration: Migration, state: str = "applied") -> Row:
    return Row(migration.version, migration.name, migration.sha256, state)


def actions(steps: list[Step]) -> list[str]:
    return [f"{step.migration.name} {step.action}" for step in steps]


ABC = read_migrations(files("0001_a", "0002_b", "0003_c", community=("0002_b",)))


def test_a_folder_reads_in_order_with_the_checksum_of_its_up_files() -> None:
    folder = files("0002_b", "0001_a")
    read = read_migrations({**folder, "README.md": b"not ours"})
    assert [m.name for m in read] == ["0001_a", "0002_b"]
    assert read[0].sha256 == hashlib.sha256(folder["0001_a.up.sql"]).hexdigest()
    assert (read[0].up.superuser, read[0].up.transactional) == (False, True)


def test_headers_choose_role_transaction_and_edition() -> None:
    header = read_header(
        "x", "-- 0001_a: who; role: says nothing here\n-- edition: any   role: superuser   transaction: none\n"
    )
    assert header == {"edition": "any", "role": "superuser", "transaction": "none"}


def test_a_header_ends_with_the_comments_that_open_the_file() -> None:
    assert read_header("x", "-- edition: any\nSELECT 1;\n-- role: superuser\n") == {"edition": "any"}


BROKEN = [
    ({"0001_a.up.sql": None}, "0001_a.down.sql has no .up.sql"),
    ({"0002_b.down.sql": None}, "0002_b.up.sql has no .down.sql"),
    ({"0001_x.up.sql": b"SELECT 1;"}, "carry the same number"),
    ({"0001_a.down.sql": None, "0001_z.down.sql": b"SELECT 1;"}, "not the same name"),
    ({"0004_d.up.sql": b"", "0004_d.down.sql": b""}, "there is no migration 0003, but a 0004"),
    ({"1_a.up.sql": b"SELECT 1;"}, "1_a.up.sql is not named like a migration"),
    ({"0002_b.up.sql": b"SELECT 1;"}, "does not say which edition"),
    ({"0002_b.up.sql": b"-- edition: comunity\nSELECT 1;"}, "expected one of any, community"),
    ({"0002_b.up.sql": b"-- edition: any   role: root\nSELECT 1;"}, "expected one of owner, superuser"),
    ({"0002_b.up.sql": b"-- edition: any   needs: 0009_z\nSELECT 1;"}, "needs 0009_z, which does not come before"),
    ({"0002_b.up.sql": b"-- edition: any   needs: 0002_b\nSELECT 1;"}, "needs 0002_b, which does not come before"),
    ({"0002_b.up.sql": b"-- edition: any\n-- nothing"}, "holds no statement"),
    ({"0002_b.up.sql": b"-- edition: any\nSELECT 1;\nCOMMIT;"}, "0002_b.up.sql, line 3: COMMIT would end"),
    ({"0002_b.up.sql": b"-- edition: any\nSELECT '\xff';"}, "not UTF-8"),
]


@pytest.mark.parametrize(("change", "said"), BROKEN, ids=[said for _, said in BROKEN])
def test_a_folder_that_does_not_hold_together_is_refused_by_name(change: dict[str, bytes | None], said: str) -> None:
    folder = {name: content for name, content in {**files("0001_a", "0002_b"), **change}.items() if content is not None}
    with pytest.raises(MigrationError) as refused:
        read_migrations(folder)
    assert said in str(refused.value)


def test_an_empty_folder_is_refused() -> None:
    with pytest.raises(MigrationError, match="no migration in the folder"):
        read_migrations({"README.md": b""})


def test_a_new_database_gets_everything_and_what_the_edition_lacks_is_recorded() -> None:
    steps = plan_migrations(ABC, [], community=False, target=None)
    assert actions(steps) == ["0001_a up", "0002_b skip", "0003_c up"]
    assert [r.state for r in ledger_after([], steps)] == ["applied", "skipped", "applied"]
    assert steps[1].script is None


def test_what_was_skipped_is_applied_once_the_edition_has_it() -> None:
    ledger = [row(ABC[0]), row(ABC[1], "skipped"), row(ABC[2])]
    assert actions(plan_migrations(ABC, ledger, community=True, target=None)) == ["0002_b up"]


def test_back_to_apache_takes_down_what_it_lacks() -> None:
    steps = plan_migrations(ABC, [row(m) for m in ABC], community=False, target=None)
    assert actions(steps) == ["0002_b withdraw"]
    assert steps[0].script == ABC[1].down
    assert [r.state for r in ledger_after([row(m) for m in ABC], steps)] == ["applied", "skipped", "applied"]


def test_down_goes_newest_first_and_a_skipped_one_is_only_forgotten() -> None:
    ledger = [row(ABC[0]), row(ABC[1], "skipped"), row(ABC[2])]
    steps = plan_migrations(ABC, ledger, community=False, target=0)
    assert actions(steps) == ["0003_c down", "0002_b forget", "0001_a down"]
    assert ledger_after(ledger, steps) == []


def test_an_edited_skipped_migration_is_recorded_anew_since_it_never_ran() -> None:
    ledger = [row(ABC[0]), Row(2, "0002_b", "0" * 64, "skipped"), row(ABC[2])]
    steps = plan_migrations(ABC, ledger, community=False, target=None)
    assert actions(steps) == ["0002_b skip"]
    assert ledger_after(ledger, steps)[1].sha256 == ABC[1].sha256


REFUSED = [
    ([Row(1, "0001_a", "0" * 64, "applied")], None, "0001_a.up.sql was edited after it was applied"),
    (
        [*(row(m) for m in ABC), Row(4, "0004_d", "0" * 64, "applied")],
        None,
        "0004_d is in the database's ledger (applied)",
    ),
    ([Row(1, "0001_z", ABC[0].sha256, "applied")], None, "its number belongs to 0001_a"),
    ([row(ABC[0]), row(ABC[2])], None, "the ledger has no 0002_b, but newer ones"),
    ([row(ABC[0], "running")], None, "began  outside a transaction and never finished"),
    ([], 4, "there is no version 4: the files go from 1 to 3"),
    ([], -1, "there is no version -1"),
]


@pytest.mark.parametrize(("ledger", "target", "said"), REFUSED, ids=[said for _, _, said in REFUSED])
@pytest.mark.parametrize("down", [False, True])
def test_a_ledger_the_files_contradict_is_refused_whichever_way_it_goes(
    ledger: list[Row], target: int | None, said: str, down: bool
) -> None:
    with pytest.raises(MigrationError) as refused:
        plan_migrations(ABC, ledger, community=False, target=0 if down and target is None else target)
    assert said in str(refused.value)


MANY = read_migrations(files(*(f"{n:04}_m" for n in range(1, 9)), community=("0003_m", "0006_m", "0007_m")))
WISHES = st.tuples(st.integers(0, 8), st.booleans())


@given(st.lists(WISHES, max_size=5), WISHES)
def test_from_wherever_it_was_a_plan_reaches_the_wish_and_a_second_finds_nothing(
    before: list[tuple[int, bool]], wish: tuple[int, bool]
) -> None:
    ledger: list[Row] = []
    for target, community in [*before, wish]:
        steps = plan_migrations(MANY, ledger, community=community, target=target)
        ledger = ledger_after(ledger, steps)
        assert plan_migrations(MANY, ledger, community=community, target=target) == []
    fresh = ledger_after([], plan_migrations(MANY, [], community=wish[1], target=wish[0]))
    assert ledger == fresh


def test_the_answer_lists_every_migration_and_what_was_pending() -> None:
    ledger = [row(ABC[0])]
    steps = plan_migrations(ABC, ledger, community=False, target=None)
    told = describe(ABC, ledger, steps)
    assert [(m["name"], m["action"], m["state"]) for m in told] == [
        ("0001_a", "none", "applied"),
        ("0002_b", "skip", "skipped"),
        ("0003_c", "up", "applied"),
    ]
    assert pending(ABC, ledger, community=False) == ["0002_b", "0003_c"]
    assert pending(ABC, ledger_after(ledger, steps), community=False) == []


def test_a_diff_reads_like_a_ledger() -> None:
    assert ledger_text("lake", None, extension=False) == "database lake: none\n"
    assert ledger_text("lake", [], extension=False) == "database lake: no migrations\n"
    assert ledger_text("lake", [row(ABC[0]), row(ABC[1], "skipped")], extension=True).splitlines() == [
        "database lake: 2 migrations",
        "extension timescaledb",
        f"0001_a  applied  sha256 {ABC[0].sha256[:12]}",
        f"0002_b  skipped  sha256 {ABC[1].sha256[:12]}",
    ]
