from __future__ import annotations

import copy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from collectors.universe import UniverseError, load_universe
from collectors.universe_load import COLUMNS, Change, UniverseConflictError, plan_instruments, plan_recording
from collectors.universe_online import moved, online_problems

DEFAULT = Path(__file__).resolve().parents[2] / "files" / "universe.yml"
ENTRY: dict[str, Any] = {
    "id": 7,
    "exchange": "binance",
    "symbol": "BTC/USDT",
    "native_id": "BTCUSDT",
    "kind": "spot",
    "base": "BTC",
    "quote": "USDT",
    "price_tick": "0.01",
    "listed_at": datetime(2017, 8, 17, 4, tzinfo=UTC),
    "channels": ["trades"],
}
OTHER = ENTRY | {"id": 8, "symbol": "ETH/USDT", "native_id": "ETHUSDT", "base": "ETH"}


def write(folder: Path, *entries: dict[str, Any]) -> Path:
    path = folder / "universe.yml"
    path.write_text(yaml.safe_dump({"version": 1, "instruments": copy.deepcopy(list(entries))}, sort_keys=False))
    return path


def problems_of(path: Path) -> list[str]:
    with pytest.raises(UniverseError) as caught:
        load_universe(path)
    return caught.value.problems


def without(key: str) -> dict[str, Any]:
    return {k: v for k, v in ENTRY.items() if k != key}


def test_the_shipped_universe_is_valid() -> None:
    universe = load_universe(DEFAULT)
    assert [i.symbol for i in universe.of("binance")] == ["BTC/USDT", "ETH/USDT", "SOL/USDT"]
    assert all(i.channels == ["trades", "quotes", "book_events"] for i in universe.instruments)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (ENTRY | {"exchange": "mtgox"}, "unknown exchange 'mtgox': known are binance"),
        (ENTRY | {"channels": ["trades", "ticks"]}, "`channels`: found ['trades', 'ticks']"),
        (ENTRY | {"channels": []}, "known channels are trades, quotes, book_events"),
        (ENTRY | {"channels": ["trades", "trades"]}, "stands twice"),
        (ENTRY | {"price_tick": 0.01}, "decimal in quotes"),
        (ENTRY | {"price_tick": "1e-2"}, "decimal above 0"),
        (ENTRY | {"price_tick": "0.00"}, "decimal above 0"),
        (ENTRY | {"price_tick": "NaN"}, "decimal above 0"),
        (ENTRY | {"id": 0}, "ids are whole numbers from 1"),
        (ENTRY | {"id": "7"}, "ids are whole numbers from 1"),
        (ENTRY | {"id": 2**31}, "ids are whole numbers from 1"),
        (ENTRY | {"base": True}, "put it in quotes"),
        (ENTRY | {"base": "ETH"}, "does not begin with base and quote ETH/USDT"),
        (ENTRY | {"listed_at": datetime(2017, 8, 17)}, "time with its zone"),  # noqa: DTZ001
        (ENTRY | {"listed_at": "yesterday"}, "time with its zone"),
        (ENTRY | {"listed_at": "2017-08-17T04:00:00Z"}, "found '2017-08-17T04:00:00Z', expected a time"),
        (ENTRY | {"channels": ["liquidations"]}, "binance has no channel liquidations: it has trades, quotes"),
        (ENTRY | {"exchange": "upbit", "channels": ["liquidations"]}, "upbit has no channel liquidations"),
        (ENTRY | {"delisted_at": datetime(2016, 1, 1, tzinfo=UTC)}, "is not after listed_at"),
        (ENTRY | {"kind": "perpetual"}, "known kinds are spot, swap, future, option"),
        (ENTRY | {"strike": "5"}, "`strike` is given, but a spot has none"),
        (ENTRY | {"kind": "swap", "settle": "USDT"}, "`contract_size` is missing, a swap has one"),
        (ENTRY | {"colour": "red"}, "unknown key `colour`: known here are id, exchange"),
        (without("native_id"), "`native_id` is missing: add it"),
        (without("id"), "(id missing, binance BTC/USDT): `id` is missing"),
    ],
)
def test_a_wrong_entry_is_named_with_line_and_remedy(tmp_path: Path, entry: dict[str, Any], expected: str) -> None:
    (problem,) = problems_of(write(tmp_path, OTHER, entry))
    assert expected in problem
    assert problem.startswith("line 14 (id ")  # behind the two lines of the top and eleven of the other entry


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    problems = problems_of(write(tmp_path, without("base") | {"kind": "x"}, OTHER | {"exchange": "mtgox"}))
    assert len(problems) == 3


def test_an_id_given_twice_names_both_entries(tmp_path: Path) -> None:
    (problem,) = problems_of(write(tmp_path, ENTRY, OTHER | {"id": 7}))
    assert problem.startswith("line 14 (id 7, binance ETH/USDT): id 7 is taken by line 3 (id 7, binance BTC/USDT)")


def test_one_native_id_for_two_listings_at_a_time_is_refused(tmp_path: Path) -> None:
    problems = problems_of(write(tmp_path, ENTRY, ENTRY | {"id": 8}))
    assert any("the exchange's id BTCUSDT also names line 3" in p for p in problems)
    assert any("the symbol BTC/USDT also names" in p for p in problems)


def test_a_symbol_may_be_listed_anew_after_its_end(tmp_path: Path) -> None:
    end = datetime(2020, 1, 1, tzinfo=UTC)
    path = write(tmp_path, ENTRY | {"delisted_at": end}, ENTRY | {"id": 8, "listed_at": end})
    assert len(load_universe(path).instruments) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("instruments: []", ["`version` is None", "`instruments` is not a list"]),
        ("version: 2\ninstruments: [1]", ["`version` is 2"]),
        ("version: 1\ninstruments: [1]", ["line 2: expected keys and values"]),
        ("[]", ["expected the keys"]),
        ("version: 1\ninstruments: [{id: 1, id: 2}]", ["line 2: the key `id` stands twice"]),
        ("version: 1\ninstruments: [{listed_at: 2017-13-40T00:00:00Z}]", ["correct dates"]),
    ],
)
def test_a_file_of_another_shape_is_refused(tmp_path: Path, text: str, expected: list[str]) -> None:
    path = tmp_path / "universe.yml"
    path.write_text(text)
    problems = problems_of(path)
    assert len(problems) == len(expected)
    assert all(part in problem for part, problem in zip(expected, problems, strict=True))


def test_an_id_that_would_name_another_instrument_is_refused(tmp_path: Path) -> None:
    universe = load_universe(write(tmp_path, ENTRY))
    with pytest.raises(UniverseConflictError, match="id 7 is binance XRPUSDT in the database and binance BTCUSDT"):
        plan_instruments(universe, {7: dict.fromkeys(COLUMNS) | ENTRY | {"native_id": "XRPUSDT"}})


def test_recording_follows_channels_delistings_and_removals(tmp_path: Path) -> None:
    gone = OTHER | {"delisted_at": datetime(2025, 1, 1, tzinfo=UTC)}
    universe = load_universe(write(tmp_path, ENTRY | {"channels": ["trades", "quotes"]}, gone))
    changes = plan_recording(
        universe, {9: OTHER | {"symbol": "OLD/USDT"}}, {(7, "trades"), (8, "trades"), (9, "quotes")}
    )
    assert changes == [
        Change("open", 7, "binance", "BTC/USDT", channel="quotes"),
        Change("close", 8, "binance", "ETH/USDT", channel="trades"),
        Change("close", 9, "binance", "OLD/USDT", channel="quotes"),
    ]


def test_the_exchange_own_list_is_compared_field_by_field(tmp_path: Path) -> None:
    universe = load_universe(write(tmp_path, ENTRY | {"price_tick": "0.1"}, OTHER))
    markets = {
        "BTC/USDT": {"id": "BTCUSDT", "type": "spot", "base": "BTC", "quote": "USDT", "precision": {"price": 0.01}},
        "ETH/USDC": {},
    }
    problems = list(online_problems(universe.instruments, markets))
    assert problems == [
        "id 7 (binance BTC/USDT): `price_tick` is 0.1 here and 0.01 at the exchange: correct it",
        "id 8 (binance ETH/USDT): the exchange lists no such symbol: did you mean ETH/USDC, BTC/USDT?",
    ]


def test_another_address_takes_the_place_of_every_host_and_leaves_the_paths() -> None:
    urls = {
        "public": "https://api.binance.com/api/v3",
        "v": {"spot": "https://api.{hostname}"},
        "rest": "https://a:1/x/",
    }
    assert moved(urls, "http://10.0.0.9:9400/") == {
        "public": "http://10.0.0.9:9400/api/v3",
        "v": {"spot": "http://10.0.0.9:9400"},
        "rest": "http://10.0.0.9:9400/x/",
    }
