"""Bars check trades by the text that digests hash: it has to be the same for every exchange."""

from __future__ import annotations

import pytest

from collectors.decode import EXCHANGES
from collectors.sync.channels import TRADES
from collectors.sync.identities import specs


@pytest.mark.parametrize("exchange", sorted(EXCHANGES))
def test_trades_of_every_exchange_are_hashed_alike(exchange: str) -> None:
    (trades,) = (spec for spec in specs(exchange) if spec.name == "trades")
    assert trades.text == TRADES.text
