"""Which statement merges which exchange's channel."""

from __future__ import annotations

import pytest

from collectors.decode import EXCHANGES, Identity, Proof, decoder
from collectors.sync.channels import BOOK_EVENTS, SPECS
from collectors.sync.errors import SourceError
from collectors.sync.identities import BY_EPOCH, BY_PREVIOUS, BY_TUPLE, specs


def test_binance_is_merged_by_id_throughout() -> None:
    assert [spec.identity for spec in specs("binance")] == [spec.identity for spec in SPECS]


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_streams_are_compared_where_an_id_names_an_event_and_does_not_tell_what_is_missing(exchange: str) -> None:
    declared = decoder(exchange).streams
    for spec in specs(exchange):
        stream = declared.get(spec.name)
        by_id = spec.name in {"trades", "liquidations"} and not spec.numbered
        assert spec.is_compared == (by_id and (stream is None or stream.proof is not Proof.CONSECUTIVE))
    assert not specs("binance")[0].is_compared
    assert specs("okx")[0].is_compared


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_channels_declared_without_id_are_merged_by_content_or_by_connection(exchange: str) -> None:
    declared = decoder(exchange).identity
    for spec in specs(exchange):
        identity = declared.get(spec.name)
        assert bool(spec.numbered) == (identity in {Identity.TUPLE, Identity.EPOCH})
        assert ("t.ingestor" in spec.same) == ("t.ingestor" in spec.text) == (identity is Identity.EPOCH)
    assert [spec.name for spec in specs(exchange)] == [spec.name for spec in SPECS]


def test_the_previous_id_counts_only_where_it_is_the_proof() -> None:
    books = {exchange: specs(exchange)[SPECS.index(BOOK_EVENTS)] for exchange in ("okx", "deribit", "bybit", "kucoin")}
    assert books == {"okx": BY_PREVIOUS, "deribit": BY_PREVIOUS, "bybit": BOOK_EVENTS, "kucoin": BOOK_EVENTS}


@pytest.mark.parametrize("channel", sorted(BY_TUPLE))
def test_whatever_the_history_keeps_of_an_event_is_its_key_or_its_payload(channel: str) -> None:
    (spec,) = (spec for name, spec in BY_TUPLE.items() if name == channel)
    provenance = {"received_at", "epoch", "ordinal"}
    assert {*spec.numbered, *spec.payload, *provenance} == {name for name, _ in spec.columns}


def test_a_number_within_its_connection_is_in_no_digest() -> None:
    assert not any("ordinal" in spec.text for spec in (*SPECS, *BY_TUPLE.values(), *BY_EPOCH.values()))


def test_an_exchange_of_another_version_is_refused_by_name() -> None:
    with pytest.raises(SourceError, match="atlantis"):
        specs("atlantis")
