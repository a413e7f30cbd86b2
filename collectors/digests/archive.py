"""Digests computed from the files of an archive, row by row, whatever the manifest says of them."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from io import TextIOWrapper
from pathlib import Path
from typing import Final

from isal import igzip

from collectors.archive.manifest import Manifest, read_manifest
from collectors.archive.verify import archived_months
from collectors.digests.model import Digest
from collectors.errors import CryptopipError
from collectors.events import CHANNELS, Channel
from collectors.sync.channels import BOOK_EVENTS, DERIVATIVES, LIQUIDATIONS, QUOTES, TRADES
from collectors.sync.identities import BY_EPOCH, BY_TUPLE, specs

Row = Mapping[str, str]
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SIDE: Final = {"t": "|buy|", "f": "|sell|", "": "||"}
_LONGEST: Final = 1 << 30  # a snapshot of 5,000 levels is one field; csv's own limit is lower


def digests_of_archive(
    folder: Path, *, since: datetime | None, until: datetime | None, channel: str | None
) -> Iterator[Digest]:
    """In the order of ``Digest.key``, of these hours; memory grows with their number, never with rows.

    Raises CryptopipError naming the file that is damaged or does not fit the others.
    """
    months = [
        (folder / month.name, read_manifest(folder / month.name))
        for month in archived_months(folder)
        if (since is None or month.end > since) and (until is None or month.start < until)
    ]
    whole = [(path, manifest) for path, manifest in months if manifest is not None]
    if len(whole) < len(months):
        bare = next(path for path, manifest in months if manifest is None)
        raise CryptopipError(
            f"{bare} has no manifest, so it is no whole month: export it again (cryptopip archive export)"
        )
    instruments = _instruments(whole)
    for name in sorted(CHANNELS) if channel is None else [name for name in CHANNELS if name == channel]:
        found: dict[tuple[int, int], tuple[int, int]] = {}
        for path, manifest in whole:
            _add(found, path, manifest, name, instruments)
        for (instrument, hour), (rows, total) in sorted(found.items()):
            at = _EPOCH + timedelta(hours=hour)
            if (since is None or at >= since) and (until is None or at < until):
                yield Digest(name, instrument, at, rows, str(total), *instruments[instrument])


def _instruments(months: list[tuple[Path, Manifest]]) -> dict[int, tuple[str, str]]:
    return {
        int(row["id"]): (row["exchange"], row["native_id"])
        for path, manifest in months
        for row in _rows(path, manifest, "instruments")
    }


def _add(
    found: dict[tuple[int, int], tuple[int, int]],
    path: Path,
    manifest: Manifest,
    channel: Channel,
    instruments: Mapping[int, tuple[str, str]],
) -> None:
    texts: dict[str, Callable[[Row], str]] = {}
    for row in _rows(path, manifest, channel):
        number = row["instrument_id"]
        if number not in texts:
            if int(number) not in instruments:
                raise CryptopipError(f"{path}: {channel} of instrument {number}, which no month's instruments have")
            texts[number] = text_of(instruments[int(number)][0], channel)
        try:
            hashed = int.from_bytes(hashlib.md5(texts[number](row).encode()).digest()[:8], signed=True)  # noqa: S324
            key = int(number), micros(row["time"]) // 3_600_000_000
        except (KeyError, ValueError) as error:
            raise CryptopipError(f"{path}: {channel} has a row that is none ({error!r}): {row}") from error
        rows, total = found.get(key, (0, 0))
        found[key] = rows + 1, total + hashed


def _rows(path: Path, manifest: Manifest, table: str) -> Iterator[dict[str, str]]:
    entry = manifest.entry(table)
    if entry is None:
        raise CryptopipError(f"{path}: the manifest has no {table}: export the month again (cryptopip archive export)")
    csv.field_size_limit(_LONGEST)
    try:
        with (
            igzip.IGzipFile(path / entry.file) as file,  # type: ignore[no-untyped-call]
            TextIOWrapper(file, "utf-8", newline="") as text,
        ):
            lines = csv.reader(text)
            names = next(lines)
            for line in lines:
                yield dict(zip(names, line, strict=True))
    except (OSError, EOFError, ValueError, KeyError, StopIteration, csv.Error) as error:
        raise CryptopipError(
            f"{path / entry.file} cannot be read ({error}): bring it back from the off-site copy"
        ) from error


@lru_cache(maxsize=1024)
def _minute(text: str) -> int:
    return int((datetime.fromisoformat(text).replace(tzinfo=UTC) - _EPOCH).total_seconds()) * 1_000_000


def micros(text: str) -> int:
    """µs since 1970 of a time as an archive has it: ``2026-11-01 08:00:00.25+00``."""
    moment, _, zone = text.rpartition("+")
    if zone != "00":
        raise ValueError(f"time {text!r}, expected one in UTC, ending in +00")
    seconds, _, fraction = moment[17:].partition(".")
    return _minute(moment[:16]) + int(seconds) * 1_000_000 + int(fraction.ljust(6, "0") or 0)


def _trade(row: Row) -> str:
    return (
        f"trades|{row['instrument_id']}|{micros(row['time'])}|{row['trade_id']}{_SIDE[row['is_buy']]}{row['price']}"
        f"|{row['amount']}|{row['buy_order_id']}|{row['sell_order_id']}"
    )


def _quote(row: Row) -> str:
    return f"quotes|{row['instrument_id']}|{_quoted(row)}"


def _timed_quote(row: Row) -> str:
    return f"quotes|{row['instrument_id']}|{micros(row['time'])}|{_quoted(row)}"


def _quoted(row: Row) -> str:
    return "|".join(row[name] for name in ("update_id", "bid_price", "bid_amount", "ask_price", "ask_amount"))


def _book_event(row: Row) -> str:
    kind = "snapshot" if row["is_snapshot"] == "t" else "update"
    levels = "|".join(row[name] for name in ("bid_prices", "bid_amounts", "ask_prices", "ask_amounts"))
    return f"book_events|{row['instrument_id']}|{kind}|{row['first_id']}|{row['last_id']}|{levels}"


def _timed_book_event(row: Row) -> str:
    return f"{_book_event(row)}|{micros(row['time'])}"


def _derivative(row: Row) -> str:
    funding = micros(row["funding_time"]) if row["funding_time"] else ""
    rest = "|".join(row[name] for name in ("open_interest", "mark_price", "index_price"))
    return f"derivatives|{row['instrument_id']}|{micros(row['time'])}|{row['funding_rate']}|{funding}|{rest}"


def _liquidation(row: Row) -> str:
    return (
        f"liquidations|{row['instrument_id']}|{micros(row['time'])}|{row['liquidation_id']}{_SIDE[row['is_buy']]}"
        f"{row['price']}|{row['amount']}"
    )


def _of_connection(text: Callable[[Row], str]) -> Callable[[Row], str]:
    return lambda row: f"{text(row)}|{row['ingestor']}|{row['epoch']}"


TEXTS: Final[dict[str, Callable[[Row], str]]] = {
    TRADES.text: _trade,
    QUOTES.text: _quote,
    BY_TUPLE["quotes"].text: _timed_quote,
    BY_EPOCH["quotes"].text: _of_connection(_timed_quote),
    BOOK_EVENTS.text: _book_event,
    BY_EPOCH["book_events"].text: _of_connection(_timed_book_event),
    DERIVATIVES.text: _derivative,
    BY_EPOCH["derivatives"].text: _of_connection(_derivative),
    LIQUIDATIONS.text: _liquidation,
}
"""What each of the texts that merges hash is here; NULL and the empty text are the same in both."""


def text_of(exchange: str, channel: Channel) -> Callable[[Row], str]:
    """How the text of an exchange's channel is built."""
    (spec,) = (spec for spec in specs(exchange) if spec.name == channel)
    return TEXTS[spec.text]
