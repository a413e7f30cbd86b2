"""Lines to COPY text: each row as sent, and nothing in it that PostgreSQL would refuse or take for something else."""

from __future__ import annotations

from base64 import b64encode
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.decode import decoder
from collectors.journal import Damage, Group, Position, Snapshot, Subscribed, Unsubscribed
from collectors.journal.format import encode_mark
from collectors.load.batch import Batch, Instruments, Stream, build
from collectors.load.coverage import Coverage
from collectors.load.text import are_numbers, escaped, is_number, timestamp_text

STREAM = Stream(3, decoder("binance"))
NOW = 1_700_000_000_123_456_789
IDS = {"BTCUSDT": 7}


def trade(trade_id: int, *, symbol: str = "BTCUSDT", price: str = "1.50", ms: int = NOW // 10**6, at: int = NOW) -> str:
    data = f'{{"e":"trade","s":"{symbol}","t":{trade_id},"p":"{price}","q":"2","T":{ms},"m":true}}'
    return f'{at} {{"stream":"x@trade","data":{data}}}\n'


def depth(first: int, last: int, bids: str = '[["1.1","2"],["1.0","0"]]') -> str:
    data = f'{{"e":"depthUpdate","E":{NOW // 10**6},"s":"BTCUSDT","U":{first},"u":{last},"b":{bids},"a":[]}}'
    return f'{NOW} {{"stream":"x@depth@100ms","data":{data}}}\n'


def quote(update_id: int, bid: str = "1.1") -> str:
    data = f'{{"u":{update_id},"s":"BTCUSDT","b":"{bid}","B":"2","a":"1.2","A":"3"}}'
    return f'{NOW} {{"stream":"x@bookTicker","data":{data}}}\n'


def made(*lines: str, ids: dict[str, int] | None = None) -> Batch:
    data = "".join(lines).encode()
    group = Group(data, 0, NOW, NOW, Position(0, 0, len(data)))
    coverage = Coverage(5, NOW, NOW, STREAM.decoder.consecutive)
    return build(Batch(9, "5-000000.journal.zst", 5), STREAM, [group], coverage, IDS if ids is None else ids)[0]


def test_rows_hold_what_was_sent_and_where_it_came_from() -> None:
    batch = made(trade(42), quote(8), depth(7, 9))
    received = "2023-11-14 22:13:20.123456"
    time = "2023-11-14 22:13:20.123000"
    assert batch.rows["trades"] == [f"{received}\t{time}\t9\t5\t3\t7\tf\t42\t1.50\t2\t\\N\t\\N\n"]
    assert batch.rows["quotes"] == [f"{received}\t\\N\t9\t5\t3\t7\t8\t1.1\t2\t1.2\t3\n"]
    assert batch.rows["book_events"] == [
        f"{received}\t{time}\t9\t5\t3\t7\t7\t9\t\\N\tf\t{{1.1,1.0}}\t{{2,0}}\t{{}}\t{{}}\n"
    ]
    assert (batch.frames, batch.received_from, batch.received_to) == (3, received, received)


def test_a_snapshot_mark_is_a_row() -> None:
    reply = '{"lastUpdateId":160,"bids":[["1.1","2"]],"asks":[]}'
    batch = made(encode_mark(Snapshot(NOW, "book_events", "BTCUSDT", "http://x", NOW, reply)))
    assert batch.rows["book_events"] == [
        "2023-11-14 22:13:20.123456\t\\N\t9\t5\t3\t7\t160\t160\t\\N\tt\t{1.1}\t{2}\t{}\t{}\n"
    ]
    assert batch.frames == 0
    assert not batch.is_empty


@pytest.mark.parametrize("price", ["NaN", "", "1.2.3", "abc", "1,2", "0x1F", "1_0", " 1", "Infinity", "\\u0000", "."])
@pytest.mark.parametrize("make", ["trade", "quote", "book"])
def test_a_wrong_number_is_parked_and_blocks_nothing_behind_it(price: str, make: str) -> None:
    bad = {
        "trade": trade(2, price=price),
        "quote": quote(2, bid=price),
        "book": depth(4, 5, f'[["{price}","1"]]'),
    }[make]
    first = trade(1)
    batch = made(first, bad, trade(3))
    assert [row.split("\t")[7] for row in batch.rows["trades"]] == ["1", "3"]
    assert batch.rows["quotes"] == batch.rows["book_events"] == []
    (parked,) = batch.parked
    assert (parked.reason, parked.line_offset, parked.line_length) == ("decode", len(first), len(bad) - 1)


def test_two_amounts_hidden_in_one_text_do_not_become_two_levels() -> None:
    batch = made(depth(1, 2, '[["1,2","3,4"]]'))
    assert batch.rows["book_events"] == []
    assert len(batch.parked) == 1


@pytest.mark.parametrize(("ms", "year"), [(0, 1970), (4_300_000_000_000, 2106)])
def test_an_event_a_day_off_is_rejected_with_its_place(ms: int, year: int) -> None:
    batch = made(trade(1), trade(2, ms=ms), trade(3))
    assert [row.split("\t")[7] for row in batch.rows["trades"]] == ["1", "3"]
    (rejected,) = batch.rejected
    assert (rejected.line_offset, rejected.event_time, rejected.native_id) == (len(trade(1)), ms * 10**6, "BTCUSDT")
    assert b'"trade_id":"2"' in rejected.event
    assert "expected within a day" in rejected.reason


def test_what_cannot_be_read_is_parked_with_its_place() -> None:
    lines = ["not a frame\n", f"{NOW} garbage\n", "99999999999999999999 {}\n", '{"mark":"new","at":1}\n']
    batch = made(*lines, trade(1))
    assert [(one.reason, one.line_length) for one in batch.parked] == [("decode", len(line) - 1) for line in lines]
    assert len(batch.rows["trades"]) == 1


def test_an_unknown_instrument_is_parked() -> None:
    batch = made(trade(1, symbol="NEWUSDT"), trade(1))
    (parked,) = batch.parked
    assert parked.reason == "unknown_instrument"
    assert "NEWUSDT" in parked.detail
    assert len(batch.rows["trades"]) == 1


def test_a_careful_second_look_leaves_coverage_as_one_look_would() -> None:
    batch = made(encode_mark(Subscribed(NOW, "trades", ["BTCUSDT"])), trade(1), trade(2, price="NaN"), trade(3))
    assert [(one.channel, one.first_id, one.last_id) for one in batch.intervals] == [
        ("trades", 1, 1),  # 2 was not loaded, and says so
        ("trades", 3, None),
    ]


def test_damage_is_reported_and_what_surrounds_it_loaded() -> None:
    one, two = trade(1).encode(), trade(2).encode()
    damage = Damage(100, 200, "a group whose checksum does not fit")
    items: list[Group | Damage] = [
        Group(one, 0, NOW, NOW, Position(0, 0, len(one))),
        damage,
        Group(two, 500, NOW, NOW, Position(200, 500, 500 + len(two))),
    ]
    coverage = Coverage(5, NOW, NOW, STREAM.decoder.consecutive)
    batch, _ = build(Batch(9, "s", 5), STREAM, items, coverage, IDS)
    assert len(batch.rows["trades"]) == 2
    assert batch.damages == [damage]
    assert [one.ended_by for one in batch.intervals] == ["disk", None]


def test_the_smallest_receive_time_counts_even_where_the_clock_was_set_back() -> None:
    batch = made(trade(1), trade(2, at=NOW - 3 * 10**9), trade(3, at=NOW - 10**9))
    assert (batch.received_from, batch.received_to) == ("2023-11-14 22:13:17.123456", "2023-11-14 22:13:20.123456")


def test_the_smallest_receive_time_counts_also_of_what_is_no_plain_frame() -> None:
    escaped_frame = f"{NOW - 5 * 10**9} base64:{b64encode(quote(1).partition(' ')[2].encode()).decode()}\n"
    reply = '{"lastUpdateId":160,"bids":[["1.1","2"]],"asks":[]}'
    snapshot = encode_mark(Snapshot(NOW + 7 * 10**9, "book_events", "BTCUSDT", "http://x", NOW, reply))
    batch = made(trade(1), escaped_frame, trade(2), snapshot, trade(3))
    assert (batch.received_from, batch.received_to) == ("2023-11-14 22:13:15.123456", "2023-11-14 22:13:27.123456")
    assert [len(rows) for rows in batch.rows.values()] == [3, 1, 1]


@given(
    st.lists(
        st.sampled_from(
            [
                trade(1),
                trade(2),
                trade(3),
                trade(5),
                trade(4, ms=0),
                trade(6, symbol="NEWUSDT"),
                quote(1),
                quote(9),
                depth(1, 3),
                depth(4, 6),
                encode_mark(Subscribed(NOW, "trades", ["BTCUSDT"])),
                encode_mark(Unsubscribed(NOW, "quotes", ["BTCUSDT"])),
                encode_mark(Subscribed(NOW, "quotes", ["BTCUSDT"])),
                "garbage\n",
            ]
        ),
        max_size=12,
    )
)
def test_the_short_way_of_common_frames_ends_where_the_long_way_does(lines: list[str]) -> None:
    quick = made(*lines)
    # The wrong number has every event of the batch looked at, the long way.
    careful = made(*lines, bad := quote(99, bid="NaN"))
    assert careful.parked.pop().line_length == len(bad) - 1
    assert careful.rows == quick.rows
    assert careful.parked == quick.parked
    assert careful.rejected == quick.rejected
    assert careful.intervals == quick.intervals
    assert (careful.received_from, careful.received_to) == (quick.received_from, quick.received_to)


def test_a_name_listed_again_means_the_listing_of_its_time() -> None:
    instruments = Instruments([("A", 1, 100), ("A", 2, 200), ("B", 3, 500)])
    assert instruments.at(150) == {"A": 1, "B": 3}
    assert instruments.at(200) == {"A": 2, "B": 3}


@given(st.lists(st.decimals(allow_nan=False, allow_infinity=False, places=8, min_value=-(10**12), max_value=10**12)))
def test_every_decimal_is_a_number(numbers: list[Decimal]) -> None:
    texts = [f"{number:f}" for number in numbers]
    assert all(map(is_number, texts))
    assert are_numbers(texts, len(texts))


@given(st.lists(st.text(alphabet="0123456789.,-eE+N\t\\{}", max_size=6), min_size=1, max_size=4))
def test_looking_at_all_numbers_at_once_never_lets_a_wrong_one_pass(texts: list[str]) -> None:
    if are_numbers(texts, len(texts)):
        # A point at the end is all that the quick look allows beyond the exact one; PostgreSQL takes it.
        assert all(is_number(text.removesuffix(".")) for text in texts)


def test_timestamps_are_floored_to_microseconds() -> None:
    assert timestamp_text(999) == "1970-01-01 00:00:00.000000"
    assert timestamp_text(NOW) == "2023-11-14 22:13:20.123456"


def test_text_is_escaped_for_copy() -> None:
    assert escaped("a\tb\\c\nd\r") == "a\\tb\\\\c\\nd\\r"
    with pytest.raises(ValueError, match="NUL"):
        escaped("a\0")
