"""Lines to COPY text: each row as sent, and nothing in it that PostgreSQL would refuse or take for something else."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.decode import decoder
from collectors.decode.binance import Binance
from collectors.events import BookEvent, Channel, Derivative, Event, Liquidation, Quote, Trade
from collectors.journal import Damage, Group, Position, Snapshot, Subscribed, Unsubscribed
from collectors.journal.format import encode_mark
from collectors.load.batch import Batch, Instruments, Stream
from collectors.load.build import build, build_parked
from collectors.load.coverage import Coverage
from collectors.load.encode import awaited
from collectors.load.text import are_numbers, escaped, is_number, split_sides, timestamp_text

STREAM = Stream(3, decoder("binance"))


class LineByLine(Binance):
    """The decoder without the short way for groups of lines."""

    def plain(self, lines: bytes) -> None:
        return None


class Scripted(Binance):
    """A decoder of whatever events there may be, told by the payload: an index."""

    def __init__(self, *events: Event) -> None:
        self.events = events

    def decode(self, payload: bytes) -> Sequence[Event]:
        return [self.events[int(place)] for place in payload.split(b",")]


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


def made(*lines: str | bytes, ids: dict[str, int] | None = None, stream: Stream = STREAM) -> Batch:
    data = b"".join(line if isinstance(line, bytes) else line.encode() for line in lines)
    group = Group(data, 0, NOW, NOW, Position(0, 0, len(data)))
    coverage = Coverage(5, NOW, NOW, stream.decoder.consecutive)
    return build(Batch(9, "5-000000.journal.zst", 5), stream, [group], coverage, IDS if ids is None else ids)[0]


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


@pytest.mark.parametrize("channel", ["trades", "quotes", "book_events"])
@pytest.mark.parametrize("fault", ["time", "number"])
def test_an_event_heard_and_not_loaded_is_not_covered(channel: Channel, fault: str) -> None:
    def event(number: int, *, is_bad: bool = False) -> Event:
        time = 0 if is_bad and fault == "time" else NOW
        price = "x" if is_bad and fault == "number" else "1"
        if channel == "trades":
            return Trade("BTCUSDT", time, str(number), None, price, "2")
        if channel == "quotes":
            return Quote("BTCUSDT", time, number, price, "2", "3", "4")
        return BookEvent("BTCUSDT", time, "update", number, number, None, [(price, "2")], [])

    stream = Stream(3, Scripted(event(1), event(2), event(3, is_bad=True), event(4), event(5)))
    snapshot = encode_mark(Snapshot(NOW, "book_events", "BTCUSDT", "", NOW, '{"lastUpdateId":1,"bids":[],"asks":[]}'))
    batch = made(
        *([snapshot] if channel == "book_events" else []), *(f"{NOW + n} {n}\n" for n in range(5)), stream=stream
    )
    assert len(batch.rows[channel]) == 4 + (channel == "book_events")
    assert len(batch.parked) + len(batch.rejected) == 1
    heard = [(one.started_at - NOW, one.ended_at and one.ended_at - NOW, one.ended_by) for one in batch.intervals]
    # The last good event ends it; a book opens again with the next whole one only.
    again = [] if channel == "book_events" else [(3, None, None)]
    assert heard == [(1 if channel == "book_events" else 0, 1, "sequence"), *again]


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
    assert {channel: len(rows) for channel, rows in batch.rows.items() if rows} == {
        "trades": 3,
        "quotes": 1,
        "book_events": 1,
    }


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
    careful = made(*lines, bad := trade(99, symbol="ETHUSDT", price="NaN"), ids=IDS | {"ETHUSDT": 8})
    assert careful.parked.pop().line_length == len(bad) - 1
    assert careful.rows == quick.rows
    assert careful.parked == quick.parked
    assert careful.rejected == quick.rejected
    assert sorted(map(repr, careful.intervals)) == sorted(map(repr, quick.intervals))
    assert (careful.received_from, careful.received_to) == (quick.received_from, quick.received_to)


def same(one: Batch, other: Batch) -> bool:
    """Whether two batches hold the same, intervals in any order."""
    return (one.rows, one.parked, one.rejected, one.frames, one.received_from, one.received_to) == (
        other.rows,
        other.parked,
        other.rejected,
        other.frames,
        other.received_from,
        other.received_to,
    ) and sorted(map(repr, one.intervals)) == sorted(map(repr, other.intervals))


PLAIN_LINES = [
    trade(1),
    trade(2, at=NOW + 7),
    trade(3),
    trade(5),
    trade(1, symbol="ETHUSDT"),
    quote(1),
    quote(2, bid="1."),
    quote(9),
    depth(1, 3),
    depth(4, 6, '[["1.1","2.0"],["1.0","0.0"]]'),
    depth(7, 9, "[]"),
    depth(8, 11, '[["1.1","2.5"]]'),
]


FRAGMENTS = [b"\n", b"}\n1", b"@depth", b"@trade", b'"b":', b'"e":', b"null", b"-", b".", b" ", b'"']


@given(
    st.lists(st.sampled_from([*PLAIN_LINES, trade(6, ms=NOW // 10**3)]), min_size=1, max_size=8),
    st.lists(
        st.tuples(
            st.integers(0, 2000),
            st.integers(0, 3),
            st.one_of(
                st.binary(max_size=2),
                st.sampled_from(FRAGMENTS),
            ),
        ),
        max_size=3,
    ),
)
@settings(max_examples=600)
def test_a_group_decoded_at_once_yields_what_its_lines_do(
    lines: list[str], changes: list[tuple[int, int, bytes]]
) -> None:
    data = "".join(lines).encode()
    for at, removed, inserted in changes:
        data = data[: at % len(data)] + inserted + data[at % len(data) + removed :]
    data = data.removesuffix(b"\n") + b"\n"
    ids = {"BTCUSDT": 7, "ETHUSDT": 8}
    slow = Stream(3, LineByLine())
    assert same(made(data, ids=ids), made(data, ids=ids, stream=slow))


def laid_out_anew(lines: str) -> list[str]:
    """The same values with white space elsewhere: other lines, though the same JSON."""
    first, second, _ = lines.split("\n")
    stamp, frame = first.split(" ")
    return [
        f"{stamp}\n{frame} {second}\n",
        f"{first} {second}\n \n",
        f"{first} {second}\n\n",
        f"{first}\n {second}\n",
        f"{first}\n\n{second}\n",
        f"{stamp} " + frame.replace(",", ",\n", 1) + f" {second}\n",
        f" {first}\n{second}\n",
        f"{first}{second}\n\n",
        f"{first}\n{second}",
    ]


@pytest.mark.parametrize("layout", range(9))
@pytest.mark.parametrize("line", [trade(1), quote(1), depth(1, 2)])
def test_what_is_no_line_of_its_own_is_never_decoded_as_one(line: str, layout: int) -> None:
    data = laid_out_anew(line + line.replace(f"{NOW} ", f"{NOW + 1} "))[layout]
    assert same(made(data), made(data, stream=Stream(3, LineByLine())))


def test_a_group_of_common_frames_is_decoded_at_once() -> None:
    found = Binance().plain("".join(PLAIN_LINES).encode())
    assert found is not None
    assert found.trades is not None
    assert found.trades.trade_id == [1, 2, 3, 5, 1]
    assert found.quotes is not None
    assert found.quotes.update_id == [1, 2, 9]
    assert found.updates is not None
    assert found.updates.last_id == [3, 6, 9, 11]
    assert Binance().plain(trade(1).encode() + b'{"mark":"gap"}\n') is None


def test_events_that_lack_something_have_nulls_there() -> None:
    events = (
        Trade("BTCUSDT", NOW, None, None, "1.5", "2"),
        Quote("BTCUSDT", NOW, None, None, None, "1.6", "3"),
        BookEvent("BTCUSDT", None, "update", None, None, None, [("1", "2")], []),
        Derivative(native_id="BTCUSDT", time=None, funding_rate="0.0001", funding_time=NOW, mark_price="1.55"),
        Liquidation("BTCUSDT", NOW, None, True, "1.5", "2"),
        Liquidation("BTCUSDT", NOW, "a\tb", None, "1.5", "2"),
    )
    batch = made(*(f"{NOW} {place}\n" for place in range(len(events))), stream=Stream(3, Scripted(*events)))
    at = "2023-11-14 22:13:20.123456"
    assert batch.rows == {
        "trades": [f"{at}\t{at}\t9\t5\t3\t7\t\\N\t\\N\t1.5\t2\t\\N\t\\N\n"],
        "quotes": [f"{at}\t{at}\t9\t5\t3\t7\t\\N\t\\N\t\\N\t1.6\t3\n"],
        "book_events": [f"{at}\t\\N\t9\t5\t3\t7\t\\N\t\\N\t\\N\tf\t{{1}}\t{{2}}\t{{}}\t{{}}\n"],
        "derivatives": [f"{at}\t\\N\t9\t5\t3\t7\t0.0001\t{at}\t\\N\t1.55\t\\N\n"],
        "liquidations": [
            f"{at}\t{at}\t9\t5\t3\t7\tt\t\\N\t1.5\t2\n",
            f"{at}\t{at}\t9\t5\t3\t7\t\\N\ta\\tb\t1.5\t2\n",
        ],
    }
    assert not batch.parked
    assert not batch.rejected
    assert {one.channel for one in batch.intervals} == set(batch.rows) - {"book_events"}


@pytest.mark.parametrize(
    "wrong",
    [
        Derivative(native_id="BTCUSDT", time=None, mark_price="NaN"),
        Derivative(native_id="BTCUSDT", time=None, funding_time=-1),
        Derivative(native_id="BTCUSDT", time=None, funding_time=10**20),
        Liquidation("BTCUSDT", NOW, "a", None, "1,5", "2"),
        Liquidation("BTCUSDT", NOW, "\0", None, "1.5", "2"),
        Quote("BTCUSDT", None, 7, None, "", "1.6", "3"),
        Trade("BTCUSDT", NOW, "\0", None, "1.5", "2"),
    ],
)
def test_what_no_column_takes_is_parked_whatever_the_channel(wrong: Event) -> None:
    good = Trade("BTCUSDT", NOW, "1", None, "1.5", "2")
    batch = made(f"{NOW} 0\n", f"{NOW} 1\n", f"{NOW} 0\n", stream=Stream(3, Scripted(good, wrong)))
    assert [(one.reason, one.line_offset) for one in batch.parked] == [("decode", len(f"{NOW} 0\n"))]
    assert {channel: len(rows) for channel, rows in batch.rows.items() if rows} == {"trades": 2}


def test_a_line_of_several_events_waits_for_the_unknown_alone() -> None:
    named = [Liquidation(name, NOW, None, None, "1.5", "2") for name in ("BTCUSDT", "NEW1", "NEW2", "NEW1")]
    stream = Stream(3, Scripted(*named))
    line = f"{NOW} 0,1,2,3"
    batch = made(line + "\n", stream=stream)
    (parked,) = batch.parked
    waits_for = awaited(parked.detail)
    assert waits_for == frozenset({"NEW1", "NEW2"})
    assert len(batch.rows["liquidations"]) == 1
    again = build_parked(Batch(10, "s", 5), stream, [(0, line.encode(), NOW, waits_for)], IDS | {"NEW1": 8})
    assert [row.split("\t")[5] for row in again.rows["liquidations"]] == ["8", "8"]
    assert [awaited(one.detail) for one in again.parked] == [frozenset({"NEW2"})]


def test_a_line_with_an_unsound_event_is_parked_whole_so_that_it_can_be_tried_again() -> None:
    events = [Trade("BTCUSDT", NOW, str(n), None, price, "2") for n, price in enumerate(["1", "NaN", "2", "x"])]
    batch = made(f"{NOW} 0\n", f"{NOW} 0,1,2,3\n", stream=Stream(3, Scripted(*events)))
    assert len(batch.rows["trades"]) == 1
    assert {one.reason for one in batch.parked} == {"decode"}
    assert {one.line_offset for one in batch.parked} == {len(f"{NOW} 0\n")}


def test_a_detail_of_another_kind_names_no_instruments() -> None:
    assert awaited("no instrument has the native_id 'X'") is None
    assert awaited("neither event nor reply") is None


@pytest.mark.parametrize(
    "event", [Liquidation("BTCUSDT", 0, "a", None, "1.5", "2"), Derivative(native_id="BTCUSDT", time=1)]
)
def test_any_channels_event_of_another_day_is_rejected(event: Event) -> None:
    batch = made(f"{NOW} 0\n", stream=Stream(3, Scripted(event)))
    assert [one.event_time for one in batch.rejected] == [event.time]


def test_a_name_listed_again_means_the_listing_of_its_time() -> None:
    instruments = Instruments([("A", 1, 100), ("A", 2, 200), ("B", 3, 500)])
    assert instruments.at(150) == {"A": 1, "B": 3}
    assert instruments.at(200) == {"A": 2, "B": 3}


@given(st.lists(st.decimals(allow_nan=False, allow_infinity=False, places=8, min_value=-(10**12), max_value=10**12)))
def test_every_decimal_is_a_number(numbers: list[Decimal]) -> None:
    texts = [f"{number:f}" for number in numbers]
    assert all(map(is_number, texts))
    assert are_numbers(texts, len(texts))


NUMBERISH = st.one_of(
    st.from_regex(r"[0-9]{1,3}\.[0-9]{0,2}", fullmatch=True), st.text('0123456789.,-e[]\\" xé', max_size=4)
)


@given(st.lists(st.lists(st.tuples(NUMBERISH, NUMBERISH), max_size=4), max_size=3))
def test_sides_are_split_at_once_only_where_each_number_is_one(sides: list[list[tuple[str, str]]]) -> None:
    split = split_sides([msgspec.json.encode(side) for side in sides])
    if split is not None:
        assert split == [
            (",".join(price for price, _ in side), ",".join(amount for _, amount in side)) for side in sides
        ]
        assert all(is_number(text.removesuffix(".")) for side in sides for level in side for text in level)


def test_common_sides_are_split_at_once() -> None:
    assert split_sides([]) == []
    assert split_sides([b"[]"]) == [("", "")]
    common = b'[["1.50","2.0"],["1.25","0.00"]]'
    assert split_sides([common, b"[]"]) == [("1.50,1.25", "2.0,0.00"), ("", "")]
    for other in (
        b'[[".50","2.0"]]',
        b'[["1.50","."]]',
        b'[["1.50","2"]]',
        b'[["1.50","2.0","0"]]',
        b'[["1%s.50","2.0"]]' % (b"0" * 16_000),
    ):
        assert split_sides([common, other]) is None


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
