"""The configuration of a host, ``/etc/cryptopip/cryptopip.yml``: strict, so that a misspelt key cannot be ignored.

An ingestor::

    ingestor: ing1
    journal: /var/lib/cryptopip/journal
    universe: /etc/cryptopip/universe.yml
    database: host=10.0.0.11 dbname=ingestor user=cryptopip_loader sslmode=verify-full passfile=/etc/cryptopip/pgpass
    exchanges: {binance: {rest: null, ws: null, lifetime_hours: null}}    # null: the exchange's own
    commit_interval_ms: 150

    retention: {days: 14, database: conninfo of the pruner, datalake: conninfo of a reader}    # what `prune` goes by

The datalake has ``universe`` and ``sync: {datalake: conninfo, sources: [{ingestor: ing1, database: conninfo}]}``, and
where it is not to keep all for ever ``expiry: {days: {book_events: 400}, archive: /var/lib/cryptopip/archive}``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import yaml
from msgspec import Meta, Struct
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from collectors.errors import UsageError
from collectors.events import CHANNELS

_T = TypeVar("_T")
DEFAULT_CONFIG = Path("/etc/cryptopip/cryptopip.yml")

Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]


class ConfigError(UsageError):
    """A configuration file cannot be used; ``problems`` has one sentence for each thing to mend."""

    def __init__(self, path: Path, problems: list[str]) -> None:
        self.path = path
        self.problems = problems
        super().__init__("\n".join(f"{path}: {problem}" for problem in problems))


class Endpoint(Struct, frozen=True):
    """Where an exchange is reached; None is the exchange's own address.

    ``lifetime_hours`` is after how long a connection there is ended by the other side, so that it is replaced before;
    None: what is known of the exchange.
    """

    rest: str | None = None
    ws: str | None = None
    lifetime_hours: Annotated[float, Meta(gt=0)] | None = None


class Source(Struct, frozen=True):
    """An ingestor database that sync pulls from."""

    ingestor: Name
    database: str


class Sync(Struct, frozen=True):
    """What sync on the datalake host merges, and into what."""

    datalake: str
    sources: list[Source]


class Retention(Struct, frozen=True):
    """What an ingestor keeps: everything for ``days``, and longer what is not provably elsewhere.

    ``min_free_gib``: free space of the journals' file system below which chunks go that kept journals can rebuild.
    """

    database: str
    datalake: str
    days: Annotated[int, Meta(ge=1, le=36_500)]
    min_free_gib: Annotated[float, Meta(ge=0)] = 0.0


class Expiry(Struct, frozen=True):
    """For how many days the datalake keeps a channel's months, where not for ever, and the archive that has them."""

    days: dict[str, Annotated[int, Meta(ge=1, le=36_500)]]
    archive: Path


class Config(Struct, frozen=True):
    """One host's configuration; keys that only one kind of host needs are empty on the other (see ``require``)."""

    ingestor: Name | None = None
    journal: Path = Path("/var/lib/cryptopip/journal")
    universe: Path = Path("/etc/cryptopip/universe.yml")
    database: str | None = None
    exchanges: dict[str, Endpoint] = {}
    commit_interval_ms: Annotated[int, Meta(ge=10, le=10_000)] = 150
    sync: Sync | None = None
    retention: Retention | None = None
    expiry: Expiry | None = None

    def endpoint(self, exchange: str) -> Endpoint:
        """Where ``exchange`` is reached; raises UsageError where this host does not record it."""
        if exchange not in self.exchanges:
            known = ", ".join(sorted(self.exchanges)) or "none"
            raise UsageError(f"{exchange!r} is not among the exchanges of this host ({known}): add it to `exchanges`")
        return self.exchanges[exchange]

    def require_ingestor(self) -> str:
        """The ingestor's name; raises UsageError where the file has none."""
        return _required("ingestor", self.ingestor)

    def require_database(self) -> str:
        """Conninfo of the ingestor's own database; raises UsageError where the file has none."""
        return _required("database", self.database)

    def require_sync(self) -> Sync:
        """What to merge; raises UsageError where the file has none."""
        return _required("sync", self.sync)

    def require_retention(self) -> Retention:
        """What to keep; raises UsageError where the file has none."""
        return _required("retention", self.retention)

    def require_expiry(self) -> Expiry:
        """What the datalake is to keep; raises UsageError where the file has nothing of it."""
        return _required("expiry", self.expiry)


def _required(key: str, value: _T | None) -> _T:
    if value is None:
        raise UsageError(f"the configuration has no `{key}`, which this command needs: add it, or run this elsewhere")
    return value


def load_config(path: Path) -> Config:
    """Read and check a host's configuration; raises ConfigError naming every unknown key and wrong value."""
    data = read_yaml(path)
    problems = unknown_keys(Config, data)
    if problems:
        raise ConfigError(path, problems)
    try:
        config = msgspec.convert(data, Config, dec_hook=to_path)
    except msgspec.ValidationError as error:
        raise ConfigError(path, [explain(error)]) from error
    conninfos = {"database": config.database}
    if config.sync is not None:
        conninfos["sync.datalake"] = config.sync.datalake
        conninfos |= {f"sync.sources[{i}].database": source.database for i, source in enumerate(config.sync.sources)}
    if config.retention is not None:
        conninfos["retention.database"] = config.retention.database
        conninfos["retention.datalake"] = config.retention.datalake
    problems = [p for key, text in conninfos.items() if text is not None for p in _conninfo_problems(key, text)]
    if config.expiry is not None and (strange := sorted(set(config.expiry.days) - set(CHANNELS))):
        problems.append(f"`expiry.days` names {', '.join(strange)}, expected of {', '.join(CHANNELS)}: correct it")
    if problems:
        raise ConfigError(path, problems)
    return config


def read_yaml(path: Path) -> Any:
    """The plain data of a YAML file; raises ConfigError where it is missing, unreadable, or repeats a key."""
    return read_yaml_nodes(path)[0]


def read_yaml_nodes(path: Path) -> tuple[Any, yaml.Node]:
    """The plain data of a YAML file and its nodes, which know their lines; raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(path, ["no such file: check the path; on a fleet's host the roles write it"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError(path, [f"not UTF-8 text ({error.reason} at byte {error.start}): save it as UTF-8"]) from error
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            raise ConfigError(path, ["the file is empty: expected keys and values"])
        _refuse_repeated_keys(path, node)
        return loader.construct_document(node), node
    except yaml.MarkedYAMLError as error:
        where = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ConfigError(path, [f"{where}not YAML: {error.problem}: check quotes and indentation"]) from error
    except ValueError as error:
        # The loader makes dates of what looks like one: 2017-13-40 is no date.
        raise ConfigError(path, [f"a value cannot be read ({error}): put text in quotes, correct dates"]) from error


def _refuse_repeated_keys(path: Path, node: yaml.Node) -> None:
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_repeated_keys(path, item)
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                line = key.start_mark.line + 1
                raise ConfigError(path, [f"line {line}: the key `{key.value}` stands twice: remove one of them"])
            seen.add(key.value)
            _refuse_repeated_keys(path, value)


def unknown_keys(kind: Any, data: Any, at: str = "") -> list[str]:
    """One sentence for each key of ``data`` that the struct ``kind`` does not have, at any depth."""
    described = kind if isinstance(kind, msgspec.inspect.Type) else msgspec.inspect.type_info(kind)
    if isinstance(described, msgspec.inspect.UnionType):
        return [p for member in described.types for p in unknown_keys(member, data, at)]
    if isinstance(described, msgspec.inspect.StructType) and isinstance(data, dict):
        fields = {field.name: field.type for field in described.fields}
        problems = [
            f"unknown key `{at}{key}`: known here are {', '.join(fields)}; correct or remove it"
            for key in data
            if key not in fields
        ]
        return problems + [
            p for key in fields.keys() & data for p in unknown_keys(fields[key], data[key], f"{at}{key}.")
        ]
    if isinstance(described, msgspec.inspect.DictType) and isinstance(data, dict):
        return [p for key, value in data.items() for p in unknown_keys(described.value_type, value, f"{at}{key}.")]
    if isinstance(described, msgspec.inspect.ListType) and isinstance(data, list):
        return [p for i, item in enumerate(data) for p in unknown_keys(described.item_type, item, f"{at}{i}.")]
    return []


def explain(error: msgspec.ValidationError) -> str:
    """msgspec's sentence with its path in front: ``sync.datalake: expected `str`, got `int```."""
    sentence, _, where = str(error).partition(" - at `$")
    where = re.sub(r"^\.", "", where.rstrip("`"))
    sentence = sentence[:1].lower() + sentence[1:]
    return f"`{where}`: {sentence}: correct it" if where else f"{sentence}: correct it"


def to_path(kind: type, value: object) -> object:
    """Decoding hook of msgspec for file paths, which must be absolute."""
    if kind is Path and isinstance(value, str):
        if not value.startswith("/"):
            raise ValueError(f"Expected an absolute path, got {value!r}")
        return Path(value)
    raise ValueError(f"Expected `{kind.__name__}`, got `{type(value).__name__}`")


def _conninfo_problems(key: str, text: str) -> list[str]:
    try:
        parts = conninfo_to_dict(text)
    except ProgrammingError as error:
        return [f"`{key}` is no conninfo ({str(error).strip()}): write it as host=... dbname=... user=..."]
    if "password" in parts:
        return [f"`{key}` holds a password, which this file must not: put it into a passfile readable by the service"]
    return []
