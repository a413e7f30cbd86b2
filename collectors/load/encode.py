"""Journal lines to COPY text, one by one: whatever an exchange may send. Pure: same lines and state, same rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from collectors.decode import DecodeError
from collectors.decode.plain import PlainDecoder
from collectors.events import CHANNELS, BookEvent, Channel, Derivative, Event, Liquidation, Quote, Trade
from collectors.journal import (
    Close,
    Gap,
    Header,
    JournalError,
    Snapshot,
    Subscribed,
    Unsubscribed,
    parse_frame,
    parse_mark,
)
from collectors.load.batch import Batch, Parked, Rejected, Stream
from collectors.load.columns import Columns
from collectors.load.coverage import Coverage, Tracker
from collectors.load.text import (
    FUNDING_TIMES_NS,
    RECEIVE_TIMES_NS,
    TIME_LIMIT_NS,
    Numbers,
    escaped,
    is_number,
    second_text,
    timestamp_text,
)

_EVENT_KINDS: Final[dict[type[Event], Channel]] = {
    Trade: "trades",
    Quote: "quotes",
    BookEvent: "book_events",
    Derivative: "derivatives",
    Liquidation: "liquidations",
}
_NOWHERE: Final = ("", Tracker("", "trades", is_consecutive=False))
"""Stands for an instrument not met yet in this batch: its tracker is not open."""


UNKNOWN: Final = "no instrument has the native_id "
"""What the detail of a line begins with that waits for instruments; their names follow in JSON."""


class UnsoundError(Exception):
    """Something of the batch is not what PostgreSQL takes: build it again with every event looked at."""


class Encoder:
    """Turns lines into COPY text of a batch. One use; ``check`` ends it."""

    def __init__(
        self, batch: Batch, stream: Stream, coverage: Coverage | None, ids: dict[str, int], *, is_careful: bool
    ) -> None:
        self.close: Close | None = None
        self.only: frozenset[str] | None = None
        """Encode events of these instruments alone: the others of the line were when it was parked."""
        self._batch = batch
        self._decoder = stream.decoder
        self._decode = stream.decoder.decode
        self._coverage = coverage
        self._ids = ids
        self._is_careful = is_careful
        self._provenance = f"{batch.number}\t{batch.epoch}\t{stream.id}"
        self._trades = batch.rows["trades"]
        self._quotes = batch.rows["quotes"]
        self._book_events = batch.rows["book_events"]
        self._numbers = Numbers()
        self._unknown: list[str] = []  # of the line being read
        self._trackers: dict[str, Tracker] = {}
        self._heads: dict[str, str | None] = {}
        self._low, self._high = RECEIVE_TIMES_NS.stop, -1  # receive times of frames and snapshots, ns
        self._known: dict[str, tuple[str, Tracker]] = {}
        self._known_quotes: dict[str, tuple[str, Tracker]] = {}
        self._time_second = -1
        self._time_text = ""
        self._line = (0, 0, 0)  # offset, length, recv_ns of the line being read
        self._plain: PlainDecoder | None = None
        if coverage is not None and not is_careful and isinstance(stream.decoder, PlainDecoder):
            self._plain = stream.decoder
            self._columns = Columns(batch, coverage, ids, self._provenance)

    def lines(self, data: bytes, start: int, at: int) -> None:
        """Encode whole lines that start at ``start`` of the segment, committed at ``at``."""
        if self._plain is not None:
            found = self._plain.plain(data)
            if found is not None and self._columns.encode(found):
                for channel in (found.trades, found.quotes, found.updates):
                    if channel is not None:
                        self._seen(min(channel.received_at))
                        self._seen(max(channel.received_at))
                        self._batch.frames += len(channel.received_at)
                return
        self._one_by_one(data, start, at)

    def _one_by_one(self, data: bytes, start: int, at: int) -> None:  # noqa: PLR0912, PLR0915
        """Nearly every line is a trade or a quote of a known instrument with a sane time.

        Those are encoded right here, without a call, since a call costs as much as their row; ``_event`` does the same
        for all there is.
        """
        decode, known, is_hot = self._decode, self._known, not self._is_careful and self._coverage is not None
        trades, quotes, numbers = self._trades.append, self._quotes.append, self._numbers.texts
        last_second, prefix = -1, ""
        last_time, time_text, time_second, time_prefix = -1, "", -1, ""
        low, high = self._low, self._high
        offset = start
        frames = 0
        for line in data.split(b"\n"):
            stamp, _, payload = line.partition(b" ")
            try:
                recv_ns = int(stamp)
                events = decode(payload)
                second, rest = divmod(recv_ns, 1_000_000_000)
                if second != last_second:
                    if recv_ns not in RECEIVE_TIMES_NS:
                        raise _wrong_time(recv_ns)
                    last_second, prefix = second, second_text(second)
            except ValueError:
                if line:
                    frames += self._uncommon(line, offset, at)
                offset += len(line) + 1
                continue
            received_at = f"{prefix}{rest // 1000:06d}"
            if recv_ns > high:  # noqa: PLR1730 - a call costs three times as much
                high = recv_ns
            if recv_ns < low:  # noqa: PLR1730
                low = recv_ns
            if not is_hot:
                self._line = (offset, len(line), recv_ns)
                self._events(events, received_at)
                frames += 1
                offset += len(line) + 1
                continue
            for event in events:
                kind = type(event)
                if kind is Trade:
                    e: Trade = event  # type: ignore[assignment]  # isinstance costs more
                    head, tracker = known.get(e.native_id, _NOWHERE)
                    time = e.time
                    number = tracker.last_id
                    trade_id = e.trade_id
                    if (
                        tracker.started_at is not None
                        and number.__class__ is int
                        and -TIME_LIMIT_NS <= time - recv_ns <= TIME_LIMIT_NS
                        and str(number + 1) == trade_id
                        and e.buy_order_id is None is e.sell_order_id
                    ):
                        if time != last_time:
                            last_time = time
                            second, rest = divmod(time, 1_000_000_000)
                            if second != time_second:
                                time_second, time_prefix = second, second_text(second)
                            time_text = f"{time_prefix}{rest // 1000:06d}"
                        price, amount = e.price, e.amount
                        numbers += (price, amount)
                        side = "t" if e.is_buy else "\\N" if e.is_buy is None else "f"
                        trades(f"{received_at}\t{time_text}\t{head}\t{side}\t{trade_id}\t{price}\t{amount}\t\\N\t\\N\n")
                        tracker.last_id, tracker.last_time, tracker.last_at = number + 1, time, recv_ns
                        continue
                elif kind is Quote:
                    q: Quote = event  # type: ignore[assignment]
                    head, tracker = self._known_quotes.get(q.native_id, _NOWHERE)
                    update_id = q.update_id
                    if (
                        tracker.last_id is not None
                        and tracker.started_at is not None
                        and q.time is None
                        and update_id is not None
                    ):
                        bid_price, bid_amount = q.bid_price, q.bid_amount
                        ask_price, ask_amount = q.ask_price, q.ask_amount
                        if (
                            bid_price is not None
                            and bid_amount is not None
                            and ask_price is not None
                            and ask_amount is not None
                        ):
                            numbers += (bid_price, bid_amount, ask_price, ask_amount)
                            quotes(
                                f"{received_at}\t\\N\t{head}\t{update_id}"
                                f"\t{bid_price}\t{bid_amount}\t{ask_price}\t{ask_amount}\n"
                            )
                            tracker.last_id, tracker.last_time, tracker.last_at = update_id, None, recv_ns
                            continue
                self._line = (offset, len(line), recv_ns)
                self._event(event, received_at, recv_ns)
            if self._unknown:
                self._park_unknown()
            frames += 1
            offset += len(line) + 1
        self._low, self._high = min(self._low, low), max(self._high, high)
        self._batch.frames += frames

    def _uncommon(self, line: bytes, offset: int, at: int) -> bool:
        """A mark, an escaped frame, or a line that is neither and is parked; whether it was a frame."""
        if line.startswith(b"{"):
            self.mark(line, offset, at)
            return False
        try:
            recv_ns, payload = parse_frame(line)
            if recv_ns not in RECEIVE_TIMES_NS:
                raise _wrong_time(recv_ns)
            events = list(self._decode(payload))
        except ValueError as error:  # DecodeError and JournalError are
            stamp = line.partition(b" ")[0]
            self._batch.parked.append(Parked(offset, len(line), _sane(stamp, at), "decode", _short(error)))
            return True
        self._line = (offset, len(line), recv_ns)
        self._seen(recv_ns)
        self._events(events, timestamp_text(recv_ns))
        return True

    def _events(self, events: Sequence[Event], received_at: str) -> None:
        """Encode the events of a line: all, or where one of them is unsound none, so that it can be tried again."""
        wanted = [event for event in events if self.only is None or event.native_id in self.only]
        if self._is_careful and not all(map(self._is_sound, wanted)):
            for event in wanted:
                self._miss(event, self._line[2])
            return
        for event in wanted:
            self._event(event, received_at, self._line[2])
        if self._unknown:
            self._park_unknown()

    def _park_unknown(self) -> None:
        """Park the line for the instruments that it waits for; what it tells of others is encoded."""
        offset, length, recv_ns = self._line
        detail = UNKNOWN + msgspec.json.encode(self._unknown).decode()
        self._batch.parked.append(Parked(offset, length, recv_ns, "unknown_instrument", detail))
        self._unknown = []

    def _seen(self, recv_ns: int) -> None:
        self._low, self._high = min(self._low, recv_ns), max(self._high, recv_ns)

    def check(self) -> None:
        """Every number encoded is one. Raises UnsoundError where not. Notes from when to when the rows reach."""
        if not self._is_careful and not self._numbers.are_sound():
            raise UnsoundError
        if any(self._batch.rows.values()):
            self._batch.received_from = timestamp_text(self._low)
            self._batch.received_to = timestamp_text(self._high)

    def mark(self, line: bytes, offset: int, at: int) -> None:
        """Follow a mark of the recorder's."""
        coverage = self._coverage
        try:
            mark = parse_mark(line)
        except JournalError as error:
            self._batch.parked.append(Parked(offset, len(line), at, "decode", _short(error)))
            return
        if isinstance(mark, Snapshot):
            try:
                event = self._decoder.decode_snapshot(mark.symbol, mark.reply.encode())
            except ValueError as error:
                self._batch.parked.append(Parked(offset, len(line), mark.at, "decode", _short(error)))
                return
            self._line = (offset, len(line), mark.at)
            self._seen(mark.at)
            self._events([event], timestamp_text(mark.at))
        elif isinstance(mark, Close):
            self.close = mark
        elif coverage is None:
            return
        elif isinstance(mark, Header) and mark.segment == 0:
            coverage.opened_at = mark.at
        elif isinstance(mark, Subscribed | Unsubscribed | Gap):
            channel = next((known for known in CHANNELS if known == mark.channel), None)
            if channel is None:
                detail = f"unknown channel {mark.channel!r}"
                self._batch.parked.append(Parked(offset, len(line), at, "decode", detail))
            elif isinstance(mark, Gap):
                coverage.lost(channel, mark.symbol, mark.at)
            elif isinstance(mark, Subscribed):
                coverage.subscribed(channel, mark.symbols, mark.at)
            else:
                coverage.unsubscribed(channel, mark.symbols, mark.at)

    def _event(self, event: Event, received_at: str, recv_ns: int) -> None:
        """Encode one event, or note why not."""
        native_id = event.native_id
        head = self._heads.get(native_id)
        if head is None:
            instrument_id = self._ids.get(native_id)
            if instrument_id is not None:
                head = self._heads[native_id] = f"{self._provenance}\t{instrument_id}"
        time = event.time
        if time is None:
            time_text = "\\N"
        elif -TIME_LIMIT_NS <= time - recv_ns <= TIME_LIMIT_NS:
            second, rest = divmod(time, 1_000_000_000)
            if second != self._time_second:
                self._time_second, self._time_text = second, second_text(second)
            time_text = f"{self._time_text}{rest // 1000:06d}"
        else:
            time_text = ""
        kind = type(event)
        if head is None:
            if native_id not in self._unknown:
                self._unknown.append(native_id)
        elif not time_text:
            self._reject(event, recv_ns)
        else:
            _ENCODERS[kind](self, event, f"{received_at}\t{time_text}\t{head}")
        if not time_text:
            self._miss(event, recv_ns)
        elif self._coverage is not None:
            self._track(event, native_id, recv_ns, time)

    def _trade(self, e: Trade, head: str) -> None:
        trade_id = e.trade_id
        self._numbers.texts += (e.price, e.amount)
        side = _flag(e.is_buy)
        if trade_id is not None and trade_id.isalnum() and e.buy_order_id is None is e.sell_order_id:
            self._trades.append(f"{head}\t{side}\t{trade_id}\t{e.price}\t{e.amount}\t\\N\t\\N\n")
        else:
            trade_id, buyer, seller = _text(trade_id), _text(e.buy_order_id), _text(e.sell_order_id)
            self._trades.append(f"{head}\t{side}\t{trade_id}\t{e.price}\t{e.amount}\t{buyer}\t{seller}\n")

    def _quote(self, q: Quote, head: str) -> None:
        values = [self._number(one) for one in (q.bid_price, q.bid_amount, q.ask_price, q.ask_amount)]
        self._quotes.append("\t".join((head, _integer(q.update_id), *values)) + "\n")

    def _book_event(self, b: BookEvent, head: str) -> None:
        bid_prices, bid_amounts = self._numbers.levels(b.bids)
        ask_prices, ask_amounts = self._numbers.levels(b.asks)
        ids = "\t".join(map(_integer, (b.first_id, b.last_id, b.previous_id)))
        self._book_events.append(
            f"{head}\t{ids}\t{_flag(b.kind == 'snapshot')}"
            f"\t{{{bid_prices}}}\t{{{bid_amounts}}}\t{{{ask_prices}}}\t{{{ask_amounts}}}\n"
        )

    def _derivative(self, d: Derivative, head: str) -> None:
        funding_time = "\\N"
        if d.funding_time is not None:
            if d.funding_time not in FUNDING_TIMES_NS:
                raise UnsoundError
            funding_time = timestamp_text(d.funding_time)
        rate = self._number(d.funding_rate)
        rest = [self._number(one) for one in (d.open_interest, d.mark_price, d.index_price)]
        self._batch.rows["derivatives"].append("\t".join((head, rate, funding_time, *rest)) + "\n")

    def _liquidation(self, e: Liquidation, head: str) -> None:
        self._numbers.texts += (e.price, e.amount)
        self._batch.rows["liquidations"].append(
            f"{head}\t{_flag(e.is_buy)}\t{_text(e.liquidation_id)}\t{e.price}\t{e.amount}\n"
        )

    def _number(self, text: str | None) -> str:
        if text is None:
            return "\\N"
        self._numbers.texts.append(text)
        return text

    def _miss(self, event: Event, recv_ns: int) -> None:
        """Tell the coverage of an event that was heard and is not among the rows."""
        if self._coverage is not None:
            self._coverage.missed(_EVENT_KINDS[type(event)], event.native_id, recv_ns)

    def _track(self, event: Event, native_id: str, recv_ns: int, time: int | None) -> None:
        """Tell the coverage of an event that is loaded, now or when its instrument has an id."""
        coverage = self._coverage
        assert coverage is not None
        kind = type(event)
        channel = _EVENT_KINDS[kind]
        key = channel + native_id
        tracker = self._trackers.get(key)
        if tracker is None:
            tracker = self._trackers[key] = coverage.tracker(channel, native_id)
            head = self._heads.get(native_id)
            if head is not None and kind is Trade and tracker.is_consecutive:
                self._known[native_id] = (head, tracker)
            elif head is not None and kind is Quote:
                self._known_quotes[native_id] = (head, tracker)
        if isinstance(event, BookEvent):
            if event.kind == "snapshot":
                coverage.snapshot(tracker, event.last_id, recv_ns)
            else:
                coverage.update(tracker, event.first_id, event.last_id, event.previous_id, recv_ns, time)
            return
        coverage.event(tracker, _id_of(event, is_number=tracker.is_consecutive), recv_ns, time)

    def _reject(self, event: Event, recv_ns: int) -> None:
        assert event.time is not None
        if not self._is_careful and _fault(event) is not None:
            raise UnsoundError
        offset, length, _ = self._line
        days = abs(event.time - recv_ns) / TIME_LIMIT_NS
        side = "before" if event.time < recv_ns else "behind"
        self._batch.rejected.append(
            Rejected(
                offset,
                length,
                recv_ns,
                event.time,
                _EVENT_KINDS[type(event)],
                event.native_id,
                f"exchange time {days:.1f} days {side} receive time; expected within a day",
                msgspec.json.encode(event),
            )
        )

    def _is_sound(self, event: Event) -> bool:
        """Whether each text of the event is what PostgreSQL takes; parks its line otherwise."""
        fault = _fault(event)
        if fault is not None:
            offset, length, recv_ns = self._line
            self._batch.parked.append(Parked(offset, length, recv_ns, "decode", fault))
        return fault is None


_ENCODERS: Final[dict[type[Event], Callable[[Encoder, Any, str], None]]] = {
    Trade: Encoder._trade,
    Quote: Encoder._quote,
    BookEvent: Encoder._book_event,
    Derivative: Encoder._derivative,
    Liquidation: Encoder._liquidation,
}


def _fault(event: Event) -> str | None:
    """What PostgreSQL would not take of an event."""
    texts, numbers = _parts(event)
    for name, all_ in numbers.items():
        for one in all_:
            if one is not None and not is_number(one):
                return f"{name}: {one[:80]!r} is no number"
    for text in texts:
        if text is not None and "\0" in text:
            return f"a NUL byte in {text[:80]!r}"
    due = event.funding_time if isinstance(event, Derivative) else None
    if due is not None and due not in FUNDING_TIMES_NS:
        return f"funding time {due} ns is not between 1970 and 2219"
    return None


def awaited(detail: str) -> frozenset[str] | None:
    """The instruments that a line parked for want of them waits for; None where its detail does not tell."""
    if not detail.startswith(UNKNOWN + "["):
        return None
    return frozenset(msgspec.json.decode(detail.removeprefix(UNKNOWN), type=list[str]))


def _parts(event: Event) -> tuple[list[str | None], dict[str, list[str | None]]]:
    """The texts of an event, and its numbers by what they are."""
    match event:
        case Trade():
            texts = [event.trade_id, event.buy_order_id, event.sell_order_id]
            return texts, {"price": [event.price], "amount": [event.amount]}
        case Quote():
            return [], {"bid": [event.bid_price, event.bid_amount], "ask": [event.ask_price, event.ask_amount]}
        case BookEvent():
            return [], {
                "bids": [text for level in event.bids for text in level],
                "asks": [text for level in event.asks for text in level],
            }
        case Derivative():
            names = ("funding_rate", "open_interest", "mark_price", "index_price")
            return [], {name: [getattr(event, name)] for name in names}
        case Liquidation():
            return [event.liquidation_id], {"price": [event.price], "amount": [event.amount]}


def _id_of(event: Trade | Quote | Derivative | Liquidation, *, is_number: bool) -> int | str | None:
    """What coverage knows an event by; ``is_number``: ids of its channel rise by one."""
    if isinstance(event, Quote):
        return event.update_id
    if isinstance(event, Derivative):
        return None
    found = event.trade_id if isinstance(event, Trade) else event.liquidation_id
    return int(found) if is_number and found is not None and found.isascii() and found.isdecimal() else found


def _flag(value: bool | None) -> str:
    return "\\N" if value is None else "t" if value else "f"


def _integer(value: int | None) -> str:
    return "\\N" if value is None else str(value)


def _text(value: str | None) -> str:
    return "\\N" if value is None else escaped(value)


def _wrong_time(recv_ns: int) -> DecodeError:
    return DecodeError(f"receive time {recv_ns} ns is not between 2009 and 2099")


def _sane(stamp: bytes, at: int) -> int:
    """The receive time of a line that may be no frame, else when it was committed."""
    try:
        ns = int(stamp)
    except ValueError:
        return at
    return ns if ns in RECEIVE_TIMES_NS else at


def _short(error: Exception) -> str:
    """An error's text as PostgreSQL can hold it."""
    return str(error)[:500].replace("\0", "\\0")
