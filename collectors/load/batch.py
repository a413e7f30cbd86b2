"""From journal lines to one load batch: decoded, encoded, checked. Pure: same lines and state, same batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal

import msgspec
from msgspec import Struct, field

from collectors.decode import DecodeError, Decoder
from collectors.events import CHANNELS, BookEvent, Channel, Derivative, Event, Level, Liquidation, Quote, Trade
from collectors.journal import (
    Close,
    Damage,
    Group,
    Header,
    JournalError,
    Position,
    Snapshot,
    Subscribed,
    Unsubscribed,
    parse_frame,
    parse_mark,
)
from collectors.load.coverage import Coverage, EndedBy, Interval, Tracker
from collectors.load.text import (
    RECEIVE_TIMES_NS,
    TIME_LIMIT_NS,
    UnstorableError,
    are_numbers,
    escaped,
    is_number,
    second_text,
    timestamp_text,
)

Reason = Literal["decode", "unknown_instrument"]
_EVENT_KINDS: Final[dict[type[Event], Channel]] = {
    Trade: "trades",
    Quote: "quotes",
    BookEvent: "book_events",
    Derivative: "derivatives",
    Liquidation: "liquidations",
}


class Parked(Struct):
    """A line that could not be loaded, by its place in the segment."""

    line_offset: int
    line_length: int
    received_at: int
    reason: Reason
    detail: str


class Rejected(Struct):
    """An event whose time cannot be right, with the place of its line."""

    line_offset: int
    line_length: int
    received_at: int
    event_time: int
    channel: Channel
    native_id: str
    reason: str
    event: bytes


class Stream(Struct, frozen=True):
    """Whose rows these are: ids in the database, and the exchange's decoder."""

    id: int
    decoder: Decoder


class Batch(Struct):
    """Everything one transaction writes."""

    number: int
    segment: str
    epoch: int
    from_offset: int = 0
    to_offset: int = 0
    received_from: str | None = None
    received_to: str | None = None
    frames: int = 0
    rows: dict[Channel, list[str]] = field(default_factory=lambda: {channel: [] for channel in CHANNELS})
    parked: list[Parked] = []
    rejected: list[Rejected] = []
    damages: list[Damage] = []
    intervals: list[Interval] = []
    ends_with: EndedBy | Literal["rotate"] | None = None
    """Why the segment ended, where it did; set by what read it."""
    position: Position | None = None
    """Where to resume; None leaves the journal's position alone (parked frames loaded later)."""
    is_done: bool = False
    resolved: list[int] = []
    """Parked frames that this batch settles."""
    state: bytes | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing but the time it reaches to would be written."""
        kept = self.frames or self.parked or self.rejected or self.damages or self.intervals or self.is_done
        return not (kept or any(self.rows.values()))  # a snapshot is a row without a frame


class Instruments:
    """Ids by the exchange's own names; of a name listed several times, the listing at the time asked for."""

    def __init__(self, rows: Iterable[tuple[str, int, int]]) -> None:
        """``rows``: native_id, id, listed_at (ns)."""
        self.rows = sorted(rows, key=lambda row: (row[0], row[2]))
        self.native_ids = {row[0] for row in self.rows}

    def at(self, ns: int) -> dict[str, int]:
        """Id by native_id; a name listed once is meant whatever the time."""
        ids: dict[str, int] = {}
        for native_id, instrument_id, listed_at in self.rows:
            if listed_at <= ns or native_id not in ids:
                ids[native_id] = instrument_id
        return ids


_NOWHERE: Final = ("", Tracker("", "trades", is_consecutive=False))
"""Stands for an instrument not met yet in this batch: its tracker is not open."""


class _BadNumberError(Exception):
    """A number of the batch is none: build it again with every event looked at."""


def build(
    batch: Batch, stream: Stream, items: Sequence[Group | Damage], coverage: Coverage, ids: dict[str, int]
) -> tuple[Batch, Coverage]:
    """Fill ``batch`` from the groups of one segment; ``coverage`` is the epoch's state before, returned as it is after.

    Numbers are checked all at once, and one by one only where that finds something.
    """
    before = coverage.dump()
    try:
        return _build(_copy(batch), stream, items, coverage, ids, is_careful=False)
    except (_BadNumberError, UnstorableError):
        return _build(_copy(batch), stream, items, Coverage.load(before), ids, is_careful=True)


def build_parked(batch: Batch, stream: Stream, lines: Sequence[tuple[int, bytes, int]], ids: dict[str, int]) -> Batch:
    """Fill ``batch`` from lines parked before: offset, line, receive time (ns). Coverage is not theirs to tell."""
    for is_careful in (False, True):
        out = _copy(batch)
        encoder = Encoder(out, stream, None, ids, is_careful=is_careful)
        try:
            for offset, line, at in lines:
                encoder.lines(line + b"\n", offset, at)
            encoder.check()
        except (_BadNumberError, UnstorableError):
            continue
        return out
    raise AssertionError("a batch whose every number was looked at has one that is none")


def _copy(batch: Batch) -> Batch:
    return Batch(batch.number, batch.segment, batch.epoch, batch.from_offset, batch.to_offset)


def _build(
    batch: Batch,
    stream: Stream,
    items: Sequence[Group | Damage],
    coverage: Coverage,
    ids: dict[str, int],
    *,
    is_careful: bool,
) -> tuple[Batch, Coverage]:
    encoder = Encoder(batch, stream, coverage, ids, is_careful=is_careful)
    for item in items:
        if isinstance(item, Damage):
            batch.damages.append(item)
            coverage.damaged()
            continue
        encoder.lines(item.data, item.start, item.at)
        coverage.reaches(item.alive)
        batch.to_offset, batch.position = item.end.line_offset, item.end
        if encoder.close is not None and encoder.close.reason != "rotate":
            coverage.close(encoder.close.reason, encoder.close.at)
    encoder.check()
    batch.intervals = coverage.changes(ids)
    return batch, coverage


class Encoder:
    """Turns lines into COPY text of a batch. One use; ``check`` ends it."""

    def __init__(
        self, batch: Batch, stream: Stream, coverage: Coverage | None, ids: dict[str, int], *, is_careful: bool
    ) -> None:
        self.close: Close | None = None
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
        self._numbers: list[str] = []
        self._levels = 0
        self._trackers: dict[str, Tracker] = {}
        self._heads: dict[str, str | None] = {}
        self._low, self._high = RECEIVE_TIMES_NS.stop, -1  # receive times of frames and snapshots, ns
        self._known: dict[str, tuple[str, Tracker]] = {}
        self._known_quotes: dict[str, tuple[str, Tracker]] = {}
        self._time_second = -1
        self._time_text = ""
        self._line = (0, 0, 0)  # offset, length, recv_ns of the line being read

    def lines(self, data: bytes, start: int, at: int) -> None:  # noqa: PLR0912, PLR0915
        """Encode whole lines that start at ``start`` of the segment, committed at ``at``.

        Nearly every line is a trade or a quote of a known instrument with a sane time. Those are encoded right here,
        without a call, since a call costs as much as their row; ``_event`` does the same for all there is.
        """
        decode, known, is_hot = self._decode, self._known, not self._is_careful and self._coverage is not None
        trades, quotes, numbers = self._trades.append, self._quotes.append, self._numbers
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
            for event in events:
                kind = type(event)
                if is_hot and kind is Trade:
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
                elif is_hot and kind is Quote:
                    q: Quote = event  # type: ignore[assignment]
                    head, tracker = self._known_quotes.get(q.native_id, _NOWHERE)
                    update_id = q.update_id
                    if (
                        tracker.last_id is not None
                        and tracker.started_at is not None
                        and q.time is None
                        and update_id is not None
                    ):
                        bid_price, bid_amount, ask_price, ask_amount = values = (
                            q.bid_price,
                            q.bid_amount,
                            q.ask_price,
                            q.ask_amount,
                        )
                        numbers += values
                        quotes(
                            f"{received_at}\t\\N\t{head}\t{update_id}\t{bid_price}\t{bid_amount}\t{ask_price}\t{ask_amount}\n"
                        )
                        tracker.last_id, tracker.last_time, tracker.last_at = update_id, None, recv_ns
                        continue
                self._line = (offset, len(line), recv_ns)
                self._event(event, received_at, recv_ns)
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
        for event in events:
            self._event(event, timestamp_text(recv_ns), recv_ns)
        return True

    def _seen(self, recv_ns: int) -> None:
        self._low, self._high = min(self._low, recv_ns), max(self._high, recv_ns)

    def check(self) -> None:
        """Every number encoded is one. Raises _BadNumberError where not. Notes from when to when the rows reach."""
        if not self._is_careful and not are_numbers(self._numbers, self._count()):
            raise _BadNumberError
        if any(self._batch.rows.values()):
            self._batch.received_from = timestamp_text(self._low)
            self._batch.received_to = timestamp_text(self._high)

    def _count(self) -> int:
        """How many numbers there must be: one a text, and those of levels that share their text."""
        return len(self._numbers) + self._levels

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
            self._event(event, timestamp_text(mark.at), mark.at)
        elif isinstance(mark, Close):
            self.close = mark
        elif coverage is None:
            return
        elif isinstance(mark, Header) and mark.segment == 0:
            coverage.opened_at = mark.at
        elif isinstance(mark, Subscribed | Unsubscribed):
            channel = next((known for known in CHANNELS if known == mark.channel), None)
            if channel is None:
                detail = f"unknown channel {mark.channel!r}"
                self._batch.parked.append(Parked(offset, len(line), at, "decode", detail))
            elif isinstance(mark, Subscribed):
                coverage.subscribed(channel, mark.symbols, mark.at)
            else:
                coverage.unsubscribed(channel, mark.symbols, mark.at)

    def _event(self, event: Event, received_at: str, recv_ns: int) -> None:  # noqa: PLR0912, PLR0915
        """Encode one event: the heart of the loader, hence flat."""
        native_id = event.native_id
        head = self._heads.get(native_id)
        if head is None:
            instrument_id = self._ids.get(native_id)
            if instrument_id is not None:
                head = self._heads[native_id] = f"{self._provenance}\t{instrument_id}"
        if self._is_careful and not self._is_sound(event):
            return
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
            offset, length, _ = self._line
            detail = f"no instrument has the native_id {native_id!r}"[:200]
            self._batch.parked.append(Parked(offset, length, recv_ns, "unknown_instrument", detail))
        elif not time_text:
            self._reject(event, recv_ns)
        elif kind is Trade:
            e: Trade = event  # type: ignore[assignment]  # isinstance would cost as much as the row
            price, amount, trade_id = e.price, e.amount, e.trade_id
            numbers = self._numbers
            numbers.append(price)
            numbers.append(amount)
            side = "t" if e.is_buy else "\\N" if e.is_buy is None else "f"
            if e.buy_order_id is None is e.sell_order_id and trade_id.isalnum():
                self._trades.append(
                    f"{received_at}\t{time_text}\t{head}\t{side}\t{trade_id}\t{price}\t{amount}\t\\N\t\\N\n"
                )
            else:
                buyer, seller = ("\\N" if one is None else escaped(one) for one in (e.buy_order_id, e.sell_order_id))
                self._trades.append(
                    f"{received_at}\t{time_text}\t{head}\t{side}\t{escaped(trade_id)}\t{price}\t{amount}\t{buyer}\t{seller}\n"
                )
        elif kind is Quote:
            q: Quote = event  # type: ignore[assignment]
            values = (q.bid_price, q.bid_amount, q.ask_price, q.ask_amount)
            self._numbers += values
            update_id = "\\N" if q.update_id is None else q.update_id
            self._quotes.append(f"{received_at}\t{time_text}\t{head}\t{update_id}\t" + "\t".join(values) + "\n")
        else:
            b: BookEvent = event  # type: ignore[assignment]
            bid_prices, bid_amounts = self._side(b.bids)
            ask_prices, ask_amounts = self._side(b.asks)
            first, last, previous = ("\\N" if one is None else one for one in (b.first_id, b.last_id, b.previous_id))
            is_snapshot = "t" if b.kind == "snapshot" else "f"
            self._book_events.append(
                f"{received_at}\t{time_text}\t{head}\t{first}\t{last}\t{previous}\t{is_snapshot}"
                f"\t{{{bid_prices}}}\t{{{bid_amounts}}}\t{{{ask_prices}}}\t{{{ask_amounts}}}\n"
            )
        if self._coverage is not None:
            self._track(event, kind, native_id, recv_ns, time if time_text else None)

    def _track(self, event: Event, kind: type[Event], native_id: str, recv_ns: int, time: int | None) -> None:
        """Tell the coverage of an event, loaded or kept otherwise."""
        coverage = self._coverage
        assert coverage is not None
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
        if kind is Trade:
            trade_id: str = event.trade_id  # type: ignore[union-attr]
            if not tracker.is_consecutive:
                coverage.event(tracker, trade_id, recv_ns, time)
                return
            coverage.event(tracker, int(trade_id), recv_ns, time)
        elif kind is Quote:
            update_id: int | None = event.update_id  # type: ignore[union-attr]
            coverage.event(tracker, update_id, recv_ns, time)
        elif isinstance(event, BookEvent):
            if event.kind == "snapshot":
                coverage.snapshot(tracker, event.last_id, recv_ns)
            else:
                coverage.update(tracker, event.first_id, event.last_id, event.previous_id, recv_ns, time)

    def _side(self, levels: list[Level]) -> tuple[str, str]:
        """Prices and amounts of one side, each joined by commas."""
        if not levels:
            return "", ""
        prices, amounts = zip(*levels, strict=True)
        both = ",".join(prices), ",".join(amounts)
        self._numbers += both
        self._levels += 2 * (len(levels) - 1)
        return both

    def _reject(self, event: Event, recv_ns: int) -> None:
        assert event.time is not None
        if not self._is_sound(event):
            return
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
        texts: list[str | None] = []
        if isinstance(event, Trade):
            texts = [event.trade_id, event.buy_order_id, event.sell_order_id]
            numbers = {"price": [event.price], "amount": [event.amount]}
        elif isinstance(event, Quote):
            numbers = {
                "bid": [event.bid_price, event.bid_amount],
                "ask": [event.ask_price, event.ask_amount],
            }
        else:
            numbers = {
                "bids": [text for level in event.bids for text in level],
                "asks": [text for level in event.asks for text in level],
            }
        faults = [
            f"{name}: {one[:80]!r} is no number" for name, all_ in numbers.items() for one in all_ if not is_number(one)
        ]
        faults += [f"a NUL byte in {text[:80]!r}" for text in texts if text is not None and "\0" in text]
        if faults:
            offset, length, recv_ns = self._line
            self._batch.parked.append(Parked(offset, length, recv_ns, "decode", faults[0]))
        return not faults


def _wrong_time(recv_ns: int) -> DecodeError:
    return DecodeError(f"receive time {recv_ns} ns is not between 1970 and 2219")


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
