"""What holds for every exchange's decoder: the contract is kept, and no bytes raise anything but a decode error."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import ccxt.pro
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collectors.decode import EXCHANGES, BookIds, DecodeError, Decoder, Identity, Proof, decoder
from collectors.decode.wire import unpacked
from collectors.events import BookEvent, Channel, Derivative, Event, Liquidation, Quote, Trade
from collectors.record.venues.contract import Venue

CHANNEL_OF: dict[type[Event], Channel] = {
    Trade: "trades",
    Quote: "quotes",
    BookEvent: "book_events",
    Derivative: "derivatives",
    Liquidation: "liquidations",
}
TEXTS = {
    Trade: ("price", "amount"),
    Quote: ("bid_price", "bid_amount", "ask_price", "ask_amount"),
    BookEvent: ("checksum",),
    Derivative: ("funding_rate", "open_interest", "mark_price", "index_price"),
    Liquidation: ("price", "amount"),
}
OPTIONAL = {Quote, BookEvent, Derivative}
BIGINT = range(-(2**63), 2**63)
every_venue = pytest.mark.parametrize("exchange", EXCHANGES)


def frames_of(exchange: str) -> dict[str, bytes]:
    """The messages of the exchange's own test."""
    frames: dict[str, bytes] = importlib.import_module(f"tests.unit.decode.test_{exchange}").FRAMES
    return frames


def venue_of(exchange: str) -> Venue:
    """What the recorder knows of the exchange."""
    venue = importlib.import_module(f"collectors.record.venues.{exchange}").VENUE
    assert isinstance(venue, Venue)
    return venue


def test_the_exchanges_are_named_once_and_in_order() -> None:
    assert list(EXCHANGES) == sorted(set(EXCHANGES))


@every_venue
def test_a_decoder_says_what_it_follows(exchange: str) -> None:
    one = decoder(exchange)
    assert one.exchange == exchange
    assert re.fullmatch(rf"{exchange}-[0-9]+", one.version)
    page = urlsplit(one.documentation)
    assert page.scheme == "https"
    assert page.hostname
    assert page.hostname in (inspect.getmodule(type(one)).__doc__ or "")


@every_venue
def test_a_decoder_declares_its_streams_without_contradiction(exchange: str) -> None:
    one = decoder(exchange)
    assert {"trades", "book_events"} <= set(one.streams) <= set(CHANNEL_OF.values())
    for channel, stream in one.streams.items():
        assert stream.name
        if channel != "book_events":
            assert stream.snapshot is None, "only books have snapshots"
            assert stream.depth is None
            assert stream.identity is not Identity.CHAIN
            if stream.proof is Proof.CONSECUTIVE:
                assert stream.identity is Identity.ID
        if stream.proof is Proof.CONNECTION:
            assert type(one).frame_number is not Decoder.frame_number
    book = one.streams["book_events"]
    assert book.snapshot is not None
    assert book.depth is None or book.depth > 0
    if book.snapshot == "rest":
        assert one.snapshot_url("BTC-USD", "https://127.0.0.1:1").startswith("https://127.0.0.1:1/")
        assert urlsplit(one.snapshot_url("BTC-USD")).scheme == "https"
    else:
        with pytest.raises(NotImplementedError, match=exchange):
            one.snapshot_url("BTC-USD")


@every_venue
def test_ccxt_still_has_the_exchange_and_its_calls(exchange: str) -> None:
    found = getattr(ccxt.pro, exchange, None)
    assert found is not None, f"ccxt {ccxt.pro.__version__} no longer has {exchange}"
    venue = venue_of(exchange)
    assert venue.exchange == exchange
    assert set(venue.watch) == set(decoder(exchange).streams)
    for watch in venue.watch.values():
        method = getattr(found, watch.method)
        assert method is not getattr(ccxt.pro.Exchange, watch.method, None), f"{watch.method} only raises NotSupported"
        parameters = inspect.signature(method).parameters
        assert list(parameters)[1] == ("symbols" if watch.is_many else "symbol")
        assert watch.limit is None or "limit" in parameters
        assert not watch.params or "params" in parameters


@every_venue
def test_the_recorder_stays_within_sane_limits(exchange: str) -> None:
    venue = venue_of(exchange)
    assert venue.kinds
    assert 1 <= venue.symbols_per_connection <= 1000
    assert 0 < venue.requests_per_second <= 100
    if decoder(exchange).streams["book_events"].snapshot == "rest":
        assert venue.snapshot_burst >= 1
        assert venue.snapshots_per_minute > 0


@every_venue
def test_the_exchange_s_messages_cover_all_its_channels(exchange: str) -> None:
    one = decoder(exchange)
    seen = {CHANNEL_OF[type(event)] for frame in frames_of(exchange).values() for event in one.decode(frame)}
    assert seen == set(one.streams)
    assert any(one.control(frame) for frame in frames_of(exchange).values()), "no reply or heartbeat among the messages"


@every_venue
def test_each_message_is_data_or_control(exchange: str) -> None:
    one = decoder(exchange)
    for name, frame in frames_of(exchange).items():
        events = list(one.decode(frame))
        assert events or one.control(frame) is not None, f"{name}: neither data nor control"
        check(events)
        books = [e for e in events if isinstance(e, BookEvent)]
        assert list(one.book_ids(frame)) == [
            BookIds(e.native_id, e.first_id, e.last_id, e.previous_id, e.kind == "snapshot") for e in books
        ], name
        prefixes = venue_of(exchange).data_prefix or ()
        prefixes = (prefixes,) if isinstance(prefixes, str) else prefixes
        if frame.startswith(tuple(prefix.encode() for prefix in prefixes)):
            assert one.control(frame) is None, f"{name}: taken for data by its beginning"


def check(events: list[Event]) -> None:
    """Numbers are text, times and ids whole numbers that the database can hold."""
    for event in events:
        for name in TEXTS[type(event)]:
            value = getattr(event, name)
            assert isinstance(value, str) or (value is None and type(event) in OPTIONAL), f"{name} of {event}"
        assert isinstance(event.native_id, str)
        needs_time = not isinstance(event, Quote | BookEvent | Derivative)
        assert type(event.time) is int or (event.time is None and not needs_time), event
        if isinstance(event, Trade):
            assert event.is_buy in (True, False, None)
            for order in (event.trade_id, event.buy_order_id, event.sell_order_id):
                assert order is None or isinstance(order, str)
        if isinstance(event, Liquidation):
            assert event.liquidation_id is None or isinstance(event.liquidation_id, str)
        if isinstance(event, Quote):
            check_ids(event, event.update_id)
        if isinstance(event, Derivative):
            assert event.funding_time is None or type(event.funding_time) is int
        if isinstance(event, BookEvent):
            assert event.kind in ("snapshot", "update")
            check_ids(event, event.first_id, event.last_id, event.previous_id)
            for level in (*event.bids, *event.asks):
                assert type(level) is tuple, level
                assert list(map(type, level)) == [str, str], level


def check_ids(event: Event, *ids: int | None) -> None:
    """Ids fit PostgreSQL's bigint."""
    for one in ids:
        assert one is None or (type(one) is int and one in BIGINT), event


def survive(one: Decoder, payload: bytes) -> None:
    """Nothing but a DecodeError, and that only of the two methods that may."""
    events: list[Event] = []
    with contextlib.suppress(DecodeError):
        events = list(one.decode(payload))
    check(events)
    one.control(payload)
    one.book_ids(payload)
    one.frame_number(payload)
    if one.streams["book_events"].snapshot == "rest":
        with contextlib.suppress(DecodeError):
            check([one.decode_snapshot("BTC-USD", payload)])


NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
VALUE = re.compile(rb'"(?:[^"\\]|\\.)*"(?=[,}\]])|(?<=:)[^",{}\[\]]+(?=[,}\]])')
PAIR = re.compile(rb'"\w+":\s*("[^"]*"|[^",{}\[\]]+)')
ODD: tuple[bytes, ...] = (
    b"-1",
    b"1e400",
    b"9" * 400,
    b"9" * 19,
    b"NaN",
    b'"NaN"',
    b"Infinity",
    b"1E-7",
    b"0.1",
    b"-0",
    b"1e5",
    b'"\\ud800"',
)
ODD += (
    b"null",
    b"true",
    b'""',
    b'"0x1F"',
    b'"1,2"',
    b"[]",
    b"{}",
    b"[[]]",
    b'[["1"]]',
    b"[{}]",
    b'"\\u0000"',
    b"9" * 5000,
)


def replaced(pattern: re.Pattern[bytes], payload: bytes, at: int, by: Callable[[bytes], bytes]) -> bytes:
    """The payload with one of the places that the pattern finds replaced; the same where it finds none."""
    found = list(pattern.finditer(payload))
    if not found:
        return payload
    one = found[at % len(found)]
    return payload[: one.start()] + by(one.group()) + payload[one.end() :]


def flip(payload: bytes, at: int, junk: bytes) -> bytes:
    at %= len(payload) + 1
    return payload[:at] + bytes(b ^ 0x15 for b in payload[at : at + 1]) + payload[at + 1 :]


def cut(payload: bytes, at: int, junk: bytes) -> bytes:
    return payload[: at % (len(payload) + 1)]


def remove(payload: bytes, at: int, junk: bytes) -> bytes:
    at %= len(payload) + 1
    return payload[:at] + payload[at + 1 + len(junk) :]


def insert(payload: bytes, at: int, junk: bytes) -> bytes:
    at %= len(payload) + 1
    return payload[:at] + junk + payload[at:]


def odd_number(payload: bytes, at: int, junk: bytes) -> bytes:
    return replaced(NUMBER, payload, at, lambda _: ODD[len(junk) % len(ODD)])


def odd_value(payload: bytes, at: int, junk: bytes) -> bytes:
    return replaced(VALUE, payload, at, lambda _: ODD[(at + len(junk)) % len(ODD)])


def same_key_twice(payload: bytes, at: int, junk: bytes) -> bytes:
    return replaced(PAIR, payload, at, lambda pair: pair + b"," + replaced(NUMBER, pair, -1, lambda _: b"7"))


def without_a_pair(payload: bytes, at: int, junk: bytes) -> bytes:
    return replaced(re.compile(PAIR.pattern + rb",?"), payload, at, lambda _: b"")


def deep(payload: bytes, at: int, junk: bytes) -> bytes:
    return replaced(VALUE, payload, at, lambda value: b"[" * 3000 + value + b"]" * 3000)


MUTATIONS = (flip, cut, remove, insert, odd_number, odd_value, same_key_twice, without_a_pair, deep)


@st.composite
def mutated(draw: st.DrawFn, frames: tuple[bytes, ...]) -> bytes:
    """A message of the exchange with one to three things wrong."""
    payload = unpacked(draw(st.sampled_from(frames)))
    for _ in range(draw(st.integers(1, 3))):
        change = draw(st.sampled_from(MUTATIONS))
        payload = change(payload, draw(st.integers(0, 4095)), draw(st.binary(max_size=30)))
    return payload


def brutal(examples: int) -> settings:
    """The time one example takes says nothing here, so it is not limited."""
    return settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))


@every_venue
@brutal(120)
@given(data=st.data())
def test_wrong_messages_raise_nothing_but_a_decode_error(exchange: str, data: st.DataObject) -> None:
    frames = tuple(frames_of(exchange).values())
    survive(decoder(exchange), data.draw(mutated(frames)))


def every_single_wrong_value(exchange: str) -> Iterator[bytes]:
    """Each value of each message replaced by each odd one, in turn."""
    for frame in frames_of(exchange).values():
        payload = unpacked(frame)
        for found in VALUE.finditer(payload):
            for odd in ODD[:-1]:
                yield payload[: found.start()] + odd + payload[found.end() :]


@every_venue
def test_no_single_wrong_value_raises_anything_but_a_decode_error(exchange: str) -> None:
    one = decoder(exchange)
    for payload in every_single_wrong_value(exchange):
        survive(one, payload)


@every_venue
@brutal(30)
@given(payload=st.binary(max_size=200))
def test_random_bytes_raise_nothing_but_a_decode_error(exchange: str, payload: bytes) -> None:
    survive(decoder(exchange), payload)
    survive(decoder(exchange), b"\x1f\x8b" + payload)


@every_venue
@pytest.mark.parametrize(
    "junk", [b"", b"{}", b"[]", b"null", b"1", b'""', b"\xff\xfe", b"{" * 9999, b'{"data":' * 5000, b"[" * 5000]
)
def test_what_is_no_message_is_never_data(exchange: str, junk: bytes) -> None:
    one = decoder(exchange)
    survive(one, junk)
    with contextlib.suppress(DecodeError):
        assert not one.decode(junk)
