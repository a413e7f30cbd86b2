"""COPY text of plain events, a column at a time: see collectors.decode.plain. Ends where one by one would end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec.json import Decoder as Json

from collectors.decode.plain import Plain, PlainQuotes, PlainTrades, PlainUpdates
from collectors.decode.wire import WIRE_ERRORS
from collectors.events import Level
from collectors.load.batch import Batch
from collectors.load.coverage import Coverage, Tracker
from collectors.load.text import TIME_LIMIT_NS, Numbers, second_text, split_sides

_levels = Json(list[Level]).decode
_Side = tuple[str, str]
_FIRST_NS: Final = 10**18
"""From 2001 to 2286 the ns since 1970 have nineteen digits."""


class _Prefixes(dict[str, str]):
    """Date and time of seconds since 1970, each made once."""

    def __missing__(self, second: str) -> str:
        text = self[second] = second_text(int(second))
        return text


class Columns:
    """Encodes what a decoder found in a group of lines. One use, for one batch."""

    def __init__(
        self, batch: Batch, numbers: Numbers, coverage: Coverage, ids: dict[str, int], provenance: str
    ) -> None:
        self._rows = batch.rows
        self._numbers = numbers
        self._coverage = coverage
        self._ids = ids
        self._provenance = provenance
        self._heads: dict[str, str] = {}
        self._prefixes = _Prefixes()

    def encode(self, plain: Plain) -> bool:
        """Encode it all, or nothing where some event is for the long way: an unknown instrument, a time far off."""
        for found in (plain.trades, plain.quotes, plain.updates):
            if found is not None and not self._heads.keys() >= (names := set(found.native_id)):
                if not self._ids.keys() >= names:
                    return False
                self._heads |= {name: f"{self._provenance}\t{self._ids[name]}" for name in names}
        for timed in (plain.trades, plain.updates):
            if timed is not None and not (
                min(timed.time) >= _FIRST_NS
                and max(timed.received_at) - TIME_LIMIT_NS <= min(timed.time)
                and max(timed.time) <= min(timed.received_at) + TIME_LIMIT_NS
            ):
                return False
        numbers = Numbers()
        sides: list[_Side] = []
        if plain.updates is not None:
            try:
                sides = _sides(plain.updates, numbers)
            except WIRE_ERRORS:
                return False
        self._numbers.add(numbers)
        if plain.trades is not None:
            self._trades(plain.trades)
        if plain.quotes is not None:
            self._quotes(plain.quotes)
        if plain.updates is not None:
            self._updates(plain.updates, sides)
        return True

    def _texts(self, times: list[int]) -> list[str]:
        prefixes = self._prefixes
        return [f"{prefixes[ns[:10]]}{ns[10:16]}" for ns in map(str, times)]

    def _heads_of(self, names: list[str]) -> Iterable[str]:
        return map(self._heads.__getitem__, names)

    def _trades(self, found: PlainTrades) -> None:
        self._numbers.texts += found.price
        self._numbers.texts += found.amount
        self._rows["trades"] += [
            f"{received_at}\t{time}\t{head}\t{'t' if is_buy else 'f'}\t{trade_id}\t{price}\t{amount}\t\\N\t\\N\n"
            for received_at, time, head, is_buy, trade_id, price, amount in zip(
                self._texts(found.received_at),
                self._texts(found.time),
                self._heads_of(found.native_id),
                found.is_buy,
                found.trade_id,
                found.price,
                found.amount,
                strict=True,
            )
        ]
        self._track(found)

    def _track(self, found: PlainTrades) -> None:
        """Tell the coverage of trades."""
        coverage = self._coverage
        names, ids, times, ats = found.native_id, found.trade_id, found.time, found.received_at
        start = 0
        if len(set(names)) == 1 and ids == list(range(ids[0], ids[0] + len(ids))):
            tracker = coverage.tracker("trades", names[0])
            if tracker.is_consecutive:
                coverage.event(tracker, ids[0], ats[0], times[0])
                start = 1
                if tracker.started_at is not None and tracker.last_id == ids[0]:  # taken, and so are all behind it
                    tracker.last_id, tracker.last_time, tracker.last_at = ids[-1], times[-1], ats[-1]
                    return
        trackers: dict[str, Tracker] = {}
        for place in range(start, len(ids)):
            name, trade_id = names[place], ids[place]
            tracker_ = trackers.get(name)
            if tracker_ is None:
                tracker_ = trackers[name] = coverage.tracker("trades", name)
            if tracker_.last_id == trade_id - 1 and tracker_.started_at is not None and tracker_.is_consecutive:
                tracker_.last_id, tracker_.last_time, tracker_.last_at = trade_id, times[place], ats[place]
            else:
                is_number = tracker_.is_consecutive
                coverage.event(tracker_, trade_id if is_number else str(trade_id), ats[place], times[place])

    def _quotes(self, found: PlainQuotes) -> None:
        texts = self._numbers.texts
        texts += found.bid_price
        texts += found.bid_amount
        texts += found.ask_price
        texts += found.ask_amount
        self._rows["quotes"] += [
            f"{received_at}\t\\N\t{head}\t{update_id}\t{bid_price}\t{bid_amount}\t{ask_price}\t{ask_amount}\n"
            for received_at, head, update_id, bid_price, bid_amount, ask_price, ask_amount in zip(
                self._texts(found.received_at),
                self._heads_of(found.native_id),
                found.update_id,
                found.bid_price,
                found.bid_amount,
                found.ask_price,
                found.ask_amount,
                strict=True,
            )
        ]
        names, ids, times = found.native_id, found.update_id, found.received_at
        last = {name: at for at, name in enumerate(names)}
        first = {name: at for at, name in zip(range(len(names) - 1, -1, -1), reversed(names), strict=True)}
        for name, start in first.items():
            tracker = self._coverage.tracker("quotes", name)
            if tracker.is_consecutive:
                places = [at for at, one in enumerate(names) if one == name]
            else:  # what came between changes nothing
                places = [start, last[name]]
            for at in places:
                self._coverage.event(tracker, ids[at], times[at], None)

    def _updates(self, found: PlainUpdates, sides: list[_Side]) -> None:
        append = self._rows["book_events"].append
        coverage = self._coverage
        for received_at, time, head, first, last, (bid_prices, bid_amounts), (ask_prices, ask_amounts) in zip(
            self._texts(found.received_at),
            self._texts(found.time),
            self._heads_of(found.native_id),
            found.first_id,
            found.last_id,
            sides[::2],
            sides[1::2],
            strict=True,
        ):
            append(
                f"{received_at}\t{time}\t{head}\t{first}\t{last}\t\\N\tf"
                f"\t{{{bid_prices}}}\t{{{bid_amounts}}}\t{{{ask_prices}}}\t{{{ask_amounts}}}\n"
            )
        for name, first, last, at, ns in zip(
            found.native_id, found.first_id, found.last_id, found.received_at, found.time, strict=True
        ):
            coverage.update(coverage.tracker("book_events", name), first, last, None, at, ns)


def _sides(updates: PlainUpdates, numbers: Numbers) -> list[_Side]:
    """Prices and amounts of bids and asks in turn; numbers not seen to be some yet are added. Raises WIRE_ERRORS."""
    sides = [bytes(side) for both in zip(updates.bids, updates.asks, strict=True) for side in both]
    split = split_sides(sides)
    if split is None:
        split = [found[0] if (found := split_sides([side])) else numbers.levels(_levels(side)) for side in sides]
    return split
