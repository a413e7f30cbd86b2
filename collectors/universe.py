"""The universe: which instruments are recorded, under which ids, on which channels.

The file is under version control and mirrors the ids the datalake gave out; this module reads it, finds every mistake
in it at once, and carries it into the tables ``instruments`` and, in the datalake, ``recording``.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import yaml
from msgspec import Meta, Struct

from collectors.config import ConfigError, read_yaml_nodes
from collectors.decode import EXCHANGES, decoder
from collectors.events import CHANNELS, Channel

Kind = Literal["spot", "swap", "future", "option"]
_Text = Annotated[str, Meta(min_length=1)]
_DECIMAL = re.compile(r"[0-9]+(\.[0-9]+)?")
_NUMBERS = ("contract_size", "strike", "price_tick", "amount_step")


class Instrument(Struct, frozen=True, kw_only=True):
    """One listing: the columns of table ``instruments``, and the channels to record."""

    id: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    exchange: _Text
    symbol: _Text
    native_id: _Text
    kind: Kind
    base: _Text
    quote: _Text
    settle: _Text | None = None
    contract_size: Decimal | None = None
    is_inverse: bool = False
    expiry: datetime | None = None
    strike: Decimal | None = None
    option_type: Literal["call", "put"] | None = None
    price_tick: Decimal | None = None
    amount_step: Decimal | None = None
    listed_at: datetime
    delisted_at: datetime | None = None
    channels: Annotated[list[Channel], Meta(min_length=1)]


class Universe(Struct, frozen=True):
    """All instruments, in the order of the file."""

    instruments: list[Instrument]

    def of(self, exchange: str) -> list[Instrument]:
        """The instruments of one exchange."""
        return [i for i in self.instruments if i.exchange == exchange]


class UniverseError(ConfigError):
    """The file cannot be used; ``problems`` names each entry at fault with its line and what to do."""


def load_universe(path: Path) -> Universe:
    """Read and check a universe file; raises UniverseError with all its mistakes, not only the first."""
    return read_universe(path, EXCHANGES)


def read_universe(path: Path, known_exchanges: Collection[str]) -> Universe:
    """Like ``load_universe``, with the exchanges that have a decoder given."""
    try:
        data, node = read_yaml_nodes(path)
    except ConfigError as error:
        raise UniverseError(path, error.problems) from error
    problems = list(_file_problems(data))
    if problems:
        raise UniverseError(path, problems)
    instruments: list[tuple[str, Instrument]] = []
    for line, entry in zip(_entry_lines(node), data["instruments"], strict=True):
        label = _label(line, entry)
        instrument, mistakes = _instrument(entry)
        if instrument is not None:
            instruments.append((label, instrument))
            mistakes += _rule_problems(instrument, known_exchanges)
        problems += [f"{label}: {mistake}" for mistake in mistakes]
    problems += _clashes(instruments)
    if problems:
        raise UniverseError(path, problems)
    return Universe([instrument for _, instrument in instruments])


def _file_problems(data: Any) -> Iterator[str]:
    if not isinstance(data, dict):
        yield "expected the keys `version` and `instruments`: see files/universe.yml for an example"
        return
    for key in data:
        if key not in ("version", "instruments"):
            yield f"unknown key `{key}`: known here are version, instruments; correct or remove it"
    if data.get("version") != 1:
        yield f"`version` is {data.get('version')!r}, expected 1: write `version: 1`"
    if not isinstance(data.get("instruments"), list) or not data["instruments"]:
        yield "`instruments` is not a list of entries: add at least one"


def _entry_lines(node: yaml.Node) -> list[int]:
    """Line of each entry, counted from 1."""
    pairs = {key.value: value for key, value in node.value}
    return [item.start_mark.line + 1 for item in pairs["instruments"].value]


def _label(line: int, entry: Any) -> str:
    if not isinstance(entry, dict):
        return f"line {line}"
    what = " ".join(str(entry[key]) for key in ("exchange", "symbol") if key in entry)
    return f"line {line} (id {entry.get('id', 'missing')}{', ' if what else ''}{what})"


def _instrument(entry: Any) -> tuple[Instrument | None, list[str]]:
    """The entry as an instrument, or None and why not: one sentence for each field."""
    if not isinstance(entry, dict):
        return None, [f"expected keys and values, found {entry!r}: write `- id: ...` and so on"]
    fields = {field.name: field for field in msgspec.structs.fields(Instrument)}
    mistakes = [
        f"unknown key `{key}`: known here are {', '.join(fields)}; correct or remove it"
        for key in entry
        if key not in fields
    ]
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name not in entry:
            if field.required:
                mistakes.append(f"`{name}` is missing: add it")
            continue
        try:
            values[name] = _value(name, field.type, entry[name])
        except ValueError as error:  # msgspec's own ValidationError is one
            mistakes.append(f"`{name}`: {error}")
    return (None, mistakes) if mistakes else (Instrument(**values), [])


def _value(name: str, kind: Any, raw: Any) -> Any:
    """One field's value; raises ValueError saying what was found and what to write."""
    if name in _NUMBERS and raw is not None:
        if not isinstance(raw, str):
            raise ValueError(
                f'found {raw!r}, expected a decimal in quotes: write "{raw}" with the exchange\'s own digits'
            )
        if not _DECIMAL.fullmatch(raw) or Decimal(raw) == 0:
            raise ValueError(f'found {raw!r}, expected a decimal above 0: write it as "0.01"')
        return Decimal(raw)
    if name in ("listed_at", "delisted_at", "expiry") and raw is not None:
        if not isinstance(raw, datetime) or raw.tzinfo is None:
            raise ValueError(
                f"found {raw!r}, expected a time with its zone and without quotes: write it as 2017-08-17T04:00:00Z"
            )
        return raw.astimezone(UTC)
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        hint = _hint(name, raw)
        raise ValueError(f"found {raw!r}, {str(error)[:1].lower()}{str(error)[1:]}: {hint}") from error


def _hint(name: str, raw: Any) -> str:
    if name == "channels":
        return f"known channels are {', '.join(CHANNELS)}"
    if name == "kind":
        return "known kinds are spot, swap, future, option"
    if name == "option_type":
        return "an option is a call or a put"
    if name == "id":
        return "ids are whole numbers from 1"
    if not isinstance(raw, str):
        return "put it in quotes where text is meant"
    return "correct it"


def _rule_problems(instrument: Instrument, known_exchanges: Collection[str]) -> list[str]:
    """What is wrong with one entry by itself although every field has the right type."""
    problems = []
    if instrument.exchange not in known_exchanges:
        known = ", ".join(sorted(known_exchanges))
        problems.append(f"unknown exchange {instrument.exchange!r}: known are {known}; correct it or remove the entry")
    else:
        problems += _channel_problems(instrument)
    pair = instrument.symbol.split(":")[0]
    if pair != f"{instrument.base}/{instrument.quote}":
        problems.append(
            f"symbol {instrument.symbol} does not begin with base and quote {instrument.base}/{instrument.quote}: "
            "correct one of them"
        )
    if len(set(instrument.channels)) != len(instrument.channels):
        problems.append("a channel stands twice in `channels`: remove one")
    if instrument.delisted_at is not None and instrument.delisted_at <= instrument.listed_at:
        problems.append(
            f"delisted_at {instrument.delisted_at} is not after listed_at {instrument.listed_at}: correct them"
        )
    needed = {
        "spot": (),
        "swap": ("settle", "contract_size"),
        "future": ("settle", "contract_size", "expiry"),
        "option": ("settle", "contract_size", "expiry", "strike", "option_type"),
    }[instrument.kind]
    problems += [
        f"`{name}` is missing, a {instrument.kind} has one: add it"
        for name in needed
        if getattr(instrument, name) is None
    ]
    foreign = {"expiry", "strike", "option_type"} - set(needed)
    problems += [
        f"`{name}` is given, but a {instrument.kind} has none: remove it"
        for name in sorted(foreign)
        if getattr(instrument, name) is not None
    ]
    return problems


def _channel_problems(instrument: Instrument) -> Iterator[str]:
    """Channels that the exchange does not offer."""
    if instrument.exchange not in EXCHANGES:
        return
    streams = decoder(instrument.exchange).streams
    for channel in instrument.channels:
        if channel not in streams:
            known = ", ".join(streams)
            yield f"{instrument.exchange} has no channel {channel}: it has {known}; remove it from `channels`"


def _clashes(instruments: list[tuple[str, Instrument]]) -> Iterator[str]:
    """What is wrong between entries: an id twice, or one name for two listings at the same time."""
    by_id: dict[int, str] = {}
    for label, instrument in instruments:
        if instrument.id in by_id:
            other = by_id[instrument.id]
            yield f"{label}: id {instrument.id} is taken by {other}: give this one an id never used before"
        by_id.setdefault(instrument.id, label)
    for field, meaning in (("native_id", "the exchange's id"), ("symbol", "the symbol")):
        groups: dict[tuple[str, str], list[tuple[str, Instrument]]] = {}
        for label, instrument in instruments:
            groups.setdefault((instrument.exchange, getattr(instrument, field)), []).append((label, instrument))
        for (_, name), members in groups.items():
            members.sort(key=lambda member: member[1].listed_at)
            for (label, earlier), (later_label, later) in itertools.pairwise(members):
                if earlier.delisted_at is None or earlier.delisted_at > later.listed_at:
                    yield (
                        f"{later_label}: {meaning} {name} also names {label}, listed at the same time: "
                        "remove one, or end the earlier with delisted_at"
                    )
