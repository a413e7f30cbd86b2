"""COPY text of plain events, a column at a time: see collectors.decode.plain. Ends where one by one would end."""

from __future__ import annotations

from msgspec import DecodeError, Raw
from msgspec.json import Decoder as Json

from collectors.decode.plain import Plain, PlainQuotes, PlainTrades, PlainUpdates
from collectors.events import Level
from collectors.load.batch import Batch
from collectors.load.coverage import Coverage, Tracker
from collectors.load.text import TIME_LIMIT_NS, Numbers, level_texts, second_text

_levels = Json(list[Level]).decode
_Sides = tuple[str, str, str, str]


class _Prefixes(dict[int, str]):
    """Date and time of seconds, each made once."""

    def __missing__(self, second: int) -> str:
        text = self[second] = second_text(second)
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
                max(timed.received_at) - TIME_LIMIT_NS <= min(timed.time)
                and max(timed.time) <= min(timed.received_at) + TIME_LIMIT_NS
            ):
                return False
        numbers = Numbers()
        sides: list[_Sides] = []
        if plain.updates is not None:
            try:
                sides = _sides(plain.updates, numbers)
            except DecodeError:
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
        return [f"{prefixes[ns // 1_000_000_000]}{ns // 1_000 % 1_000_000:06d}" for ns in times]

    def _heads_of(self, names: list[str]) -> list[str]:
        heads = self._heads
        return [heads[name] for name in names]

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
        coverage = self._coverage
        trackers: dict[str, Tracker] = {}
        for name, trade_id, time, at in zip(
            found.native_id, found.trade_id, found.time, found.received_at, strict=True
        ):
            tracker = trackers.get(name)
            if tracker is None:
                tracker = trackers[name] = coverage.tracker("trades", name)
            if tracker.last_id == trade_id - 1 and tracker.started_at is not None and tracker.is_consecutive:
                tracker.last_id, tracker.last_time, tracker.last_at = trade_id, time, at
            else:
                coverage.event(tracker, trade_id if tracker.is_consecutive else str(trade_id), at, time)

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

    def _updates(self, found: PlainUpdates, sides: list[_Sides]) -> None:
        append = self._rows["book_events"].append
        coverage = self._coverage
        for received_at, time, head, first, last, (bid_prices, bid_amounts, ask_prices, ask_amounts) in zip(
            self._texts(found.received_at),
            self._texts(found.time),
            self._heads_of(found.native_id),
            found.first_id,
            found.last_id,
            sides,
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


def _sides(found: PlainUpdates, numbers: Numbers) -> list[_Sides]:
    """The four arrays of each update; numbers not seen to be some yet are added. Raises DecodeError."""
    return [(*_side(bids, numbers), *_side(asks, numbers)) for bids, asks in zip(found.bids, found.asks, strict=True)]


def _side(raw: Raw, numbers: Numbers) -> tuple[str, str]:
    levels = bytes(raw)
    return level_texts(levels) or numbers.levels(_levels(levels))
