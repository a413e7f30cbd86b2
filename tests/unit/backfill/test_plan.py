"""What is to be done about a gap, from ids alone; and how exchanges tell past trades."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from collectors.backfill.histories import HISTORIES, HistoryError
from collectors.backfill.plan import INGESTOR, Known, Missing, Plan, plan_gap, unfillable
from collectors.backfill.run import reaches, wanted
from collectors.config import Source
from collectors.coverage.model import Gap
from collectors.decode import EXCHANGES, Identity, decoder
from collectors.events import Trade

T = datetime(2026, 11, 1, 12, tzinfo=UTC)
BINANCE = (1, "binance", "BTC/USDT", "BTCUSDT")
OKX = (2, "okx", "BTC/USDT", "BTC-USDT")
GAP = Gap(T, T + timedelta(seconds=9), 9.0, "10", "20", {"ing1": "crash"})


def test_ids_that_follow_each_other_left_nothing_out() -> None:
    gap = replace(GAP, first_id_after="11", ids_between=0, missing_ids=0)
    plan = plan_gap(BINANCE, gap, Missing(0), None)
    assert (plan.state, plan.detail, plan.is_due) == ("empty", "trade ids 10 and 11 follow each other", False)


def test_ids_that_are_all_there_mend_a_gap_whoever_brought_them() -> None:
    gap = replace(GAP, ids_between=9, missing_ids=0)
    assert plan_gap(BINANCE, gap, Missing(0), None).state == "mended"
    assert plan_gap(BINANCE, gap, Missing(0), Known("out_of_reach", "x")).state == "mended"


def test_only_what_is_missing_is_asked_for() -> None:
    plan = plan_gap(BINANCE, replace(GAP, ids_between=9, missing_ids=3), Missing(3, 14, 17), None)
    assert (plan.state, plan.after, plan.before, plan.missing) == ("open", 13, 18, 3)
    plan = plan_gap(OKX, GAP, None, None)
    assert (plan.state, plan.after, plan.before, plan.missing) == ("open", 10, 20, None)


def test_a_run_goes_on_from_where_the_one_before_was_killed() -> None:
    assert plan_gap(OKX, GAP, None, Known("open", position=15)).before == 15


@given(st.integers(0, 40), st.integers(1, 40), st.integers(0, 90))
def test_wherever_a_run_was_killed_the_next_one_asks_for_what_is_left(after: int, length: int, position: int) -> None:
    """A page may reach beyond the last trade known, and its verdict not be written any more."""
    gap = replace(GAP, last_id_before=str(after), first_id_after=str(after + length))
    plan = plan_gap(OKX, gap, None, Known("open", position=position))
    assert (plan.state, plan.after) == ("open", after)
    assert plan.before is not None
    assert after < plan.before <= after + length
    assert plan.before <= max(position, after + 2)
    told = [trade(number, 1) for number in range(plan.before)][-1:]
    assert position > after + 2 or reaches(told, after, T), "the page that is asked for once more is the last"


def test_an_id_that_a_page_left_out_is_asked_for_again_however_far_the_run_came() -> None:
    plan = plan_gap(BINANCE, replace(GAP, ids_between=9, missing_ids=1), Missing(1, 14, 14), Known("open", position=12))
    assert (plan.state, plan.after, plan.before) == ("open", 13, 15)
    plan = plan_gap(BINANCE, replace(GAP, ids_between=9, missing_ids=3), Missing(3, 11, 14), Known("open", position=12))
    assert (plan.after, plan.before) == (10, 15)


@pytest.mark.parametrize("state", ["empty", "mended", "out_of_reach"])
def test_what_was_found_out_is_not_asked_again_unless_told_to(state: Any) -> None:
    known = Known(state, "so it is")
    assert plan_gap(OKX, GAP, None, known).state == state
    assert plan_gap(OKX, GAP, None, known, retry=True).is_due is (state == "out_of_reach")


def test_a_gap_that_was_mended_and_lost_trades_again_is_filled_again() -> None:
    assert plan_gap(BINANCE, replace(GAP, ids_between=9), Missing(1, 14, 14), Known("mended", "all")).is_due


@pytest.mark.parametrize(
    ("gap", "word"),
    [
        (replace(GAP, first_id_after=None), "behind it"),
        (replace(GAP, last_id_before=None), "before it"),
        (replace(GAP, last_id_before="30"), "count anew"),
    ],
)
def test_a_gap_whose_ends_are_not_known_stays_and_says_why(gap: Gap, word: str) -> None:
    plan = plan_gap(OKX, gap, None, None)
    assert (plan.state, plan.is_left) == (None, True)
    assert word in plan.detail


def test_where_nobody_had_listened_before_the_start_of_the_gap_is_the_bound() -> None:
    plan = plan_gap(OKX, replace(GAP, last_id_before=None, ended_by={}), None, None)
    assert (plan.state, plan.after, plan.before) == ("open", None, 20)


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_every_exchange_can_be_filled_or_says_why_not(exchange: str) -> None:
    reason = unfillable(exchange)
    identity = decoder(exchange).streams["trades"].identity
    assert (reason is None) == (exchange in HISTORIES)
    assert exchange not in HISTORIES or identity is Identity.ID, "what is told could be doubled"
    assert identity is Identity.ID or "no id" in (reason or "")


def test_no_ingestor_can_have_the_name_that_marks_a_backfilled_trade() -> None:
    with pytest.raises(msgspec.ValidationError, match="regex"):
        msgspec.convert({"ingestor": INGESTOR, "database": ""}, Source)


def test_histories_give_the_rows_that_streams_give() -> None:
    told = {"id": 7, "price": "1.10", "qty": "2.0", "quoteQty": "2.20", "time": 1, "isBuyerMaker": True}
    sent = b'{"e":"trade","E":2,"s":"BTCUSDT","t":7,"p":"1.10","q":"2.0","T":1,"m":true,"M":true}'
    assert HISTORIES["binance"].trade("BTCUSDT", told) == decoder("binance").decode(sent)[0]
    told = {"instId": "BTC-USDT", "side": "sell", "sz": "0.10", "px": "1.10", "tradeId": "7", "ts": "1", "source": "0"}
    sent = (
        b'{"arg":{"channel":"trades-all","instId":"BTC-USDT"},"data":[{"instId":"BTC-USDT","tradeId":"7",'
        b'"px":"1.10","sz":"0.10","side":"sell","ts":"1","source":"0"}]}'
    )
    assert HISTORIES["okx"].trade("BTC-USDT", told) == decoder("okx").decode(sent)[0]


@pytest.mark.parametrize(
    "changed", [{"price": 1.1}, {"qty": None}, {"id": "x"}, {"id": True}, {"time": 1.5}, {"isBuyerMaker": "true"}]
)
def test_a_reply_that_is_not_as_documented_is_refused(changed: dict[str, Any]) -> None:
    told = {"id": 7, "price": "1.10", "qty": "2.0", "time": 1, "isBuyerMaker": True} | changed
    with pytest.raises(HistoryError, match=f"'{next(iter(changed))}'.*expected"):
        HISTORIES["binance"].trade("BTCUSDT", told)


def test_okx_tells_a_side_or_is_refused() -> None:
    told = {"side": "both", "sz": "0.10", "px": "1.10", "tradeId": "7", "ts": "1"}
    with pytest.raises(HistoryError, match="expected buy or sell"):
        HISTORIES["okx"].trade("BTC-USDT", told)


def trade(number: int, seconds: float) -> Trade:
    time = int((T - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1e9) + int(seconds * 1e9)
    return Trade("BTCUSDT", time, str(number), True, "1", "1")


def test_a_page_reaches_the_last_trade_known_or_the_start_and_gives_what_lies_between() -> None:
    page = [trade(9, -2), trade(12, 1), trade(15, 3), trade(21, 9)]
    plan: Plan = plan_gap(OKX, GAP, None, None)
    assert reaches(page, 10, T)
    assert reaches([trade(11, 1)], 10, T), "the id behind the last one known"
    assert not reaches(page[1:], 10, T)
    assert [each.trade_id for each in wanted(page, plan)] == ["12", "15"]
    from_start = replace(plan, after=None)
    assert reaches(page, None, T)
    assert not reaches(page[1:], None, T)
    assert [each.trade_id for each in wanted(page, from_start)] == ["12", "15"]
