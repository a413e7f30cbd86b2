"""KuCoin futures: the streams of ``/contractMarket`` and of the Pro API, read by KuCoin's decoder.

Wire: https://www.kucoin.com/docs-new/3470082w0 (see ``kucoin.py``). Amounts are contracts; whole books come by REST.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

from collectors.decode.contract import Identity, Proof, Stream
from collectors.decode.kucoin import Kucoin
from collectors.events import Channel


class KucoinFutures(Kucoin):
    """The decoder of KuCoin futures."""

    exchange: ClassVar[str] = "kucoinfutures"
    version: ClassVar[str] = "kucoinfutures-1"
    documentation: ClassVar[str] = "https://www.kucoin.com/docs-new/3470082w0"
    rest: ClassVar[str] = "https://api-futures.kucoin.com"
    streams: ClassVar[Mapping[Channel, Stream]] = {
        "trades": Stream(name="/contractMarket/execution", identity=Identity.ID),
        "quotes": Stream(name="/contractMarket/tickerV2", identity=Identity.TUPLE),
        "book_events": Stream(
            name="/contractMarket/level2", identity=Identity.CHAIN, proof=Proof.CONSECUTIVE, snapshot="rest"
        ),
        "derivatives": Stream(name="mark-price, funding-fee", identity=Identity.TUPLE),
    }

    def snapshot_url(self, native_id: str, rest: str | None = None) -> str:
        """The whole book."""
        return f"{rest or self.rest}/api/v1/level2/snapshot?symbol={native_id}"


DECODER: Final = KucoinFutures()
