from __future__ import annotations

from pathlib import Path

import pytest

from collectors.config import ConfigError, Endpoint, load_config
from collectors.errors import UsageError

GOOD = """
ingestor: ing1
journal: /var/lib/cryptopip/journal
database: host=10.0.0.11 dbname=ingestor user=cryptopip_loader sslmode=verify-full
exchanges: {binance: {rest: null, ws: "ws://10.0.0.9:9443"}}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "cryptopip.yml"
    path.write_text(text)
    return path


def problems_of(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(write(folder, text))
    return caught.value.problems


def test_a_good_file_is_read_with_its_defaults(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, GOOD))
    assert config.require_ingestor() == "ing1"
    assert config.journal == Path("/var/lib/cryptopip/journal")
    assert config.endpoint("binance") == Endpoint(rest=None, ws="ws://10.0.0.9:9443")
    assert config.commit_interval_ms == 150


def test_every_unknown_key_is_named_at_any_depth_with_the_known_ones(tmp_path: Path) -> None:
    text = GOOD.replace("rest:", "rset:") + "jurnal: /x\nsync: {datalake: dbname=d, sources: [{ingestr: a}]}\n"
    problems = problems_of(tmp_path, text)
    assert len(problems) == 3
    assert any("`jurnal`" in p and "journal" in p for p in problems)
    assert any("`exchanges.binance.rset`" in p and "known here are rest, ws" in p for p in problems)
    assert any("`sync.sources.0.ingestr`" in p for p in problems)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ingestor: [a]", "`ingestor`: expected `str"),
        ("ingestor: Ing/1", "`ingestor`"),
        ("journal: var/journal", "absolute path"),
        ("commit_interval_ms: 0", "`commit_interval_ms`"),
        ("database: hello", "`database` is no conninfo"),
        ("database: host=a password=b", "passfile"),
        ("sync: {datalake: 'password=x', sources: []}", "`sync.datalake` holds a password"),
        ("expiry: {days: {books: 3}, archive: /a}", "`expiry.days` names books, expected of trades"),
        ("expiry: {days: {trades: 0}, archive: /a}", "`expiry.days"),
        ("expiry: {days: {trades: 3}, archive: a/b}", "absolute path"),
        ("expiry: {days: {trades: 3}}", "`archive`"),
        ("ingestor: a\ningestor: b", "line 2: the key `ingestor` stands twice"),
        ("ingestor: 'a", "not YAML"),
        ("", "empty"),
        ("- a", "expected `object`"),
    ],
)
def test_a_wrong_value_is_explained(tmp_path: Path, text: str, expected: str) -> None:
    (problem,) = problems_of(tmp_path, text)
    assert expected in problem


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yml: no such file: .*roles write it"):
        load_config(tmp_path / "absent.yml")


def test_an_error_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, "a: 1"))
    assert str(caught.value).startswith(str(tmp_path / "cryptopip.yml"))


def test_a_command_that_needs_an_absent_key_says_which(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "exchanges: {}"))
    for require, key in (
        (config.require_ingestor, "ingestor"),
        (config.require_database, "database"),
        (config.require_sync, "sync"),
    ):
        with pytest.raises(UsageError, match=f"`{key}`"):
            require()
    with pytest.raises(UsageError, match="'kraken' is not among the exchanges of this host"):
        config.endpoint("kraken")
