"""Whose reply it is."""

from __future__ import annotations

from collectors.record.requests import Requests


def test_a_reply_without_names_answers_the_oldest_request() -> None:
    requests = Requests(["BTCUSDT", "ETHUSDT"], each_symbol=False)
    requests.sent(["BTCUSDT"], '{"args":["trade.BTCUSDT"]}')
    requests.sent(["ETHUSDT"], '{"args":["trade.ETHUSDT"]}')
    assert requests.subscribed([]) == ["BTCUSDT"]
    assert requests.refused([], "no such symbol") == ["ETHUSDT"]
    assert not requests.pending
    assert requests.refused_ids == {"ETHUSDT"}


def test_a_request_that_is_sent_in_parts_is_acknowledged_in_parts() -> None:
    requests = Requests(["BTC-USDT", "ETH-USDT"], each_symbol=False)
    requests.sent(["BTC-USDT", "ETH-USDT"], "btcusdt@trade")
    requests.sent(["BTC-USDT", "ETH-USDT"], "ethusdt@trade")
    assert requests.subscribed([]) == ["BTC-USDT"]
    assert list(requests.pending) == ["ETH-USDT"]


def test_where_each_symbol_is_acknowledged_the_last_reply_completes_the_request() -> None:
    requests = Requests(["A1", "B1"], each_symbol=True)
    requests.sent(["A1", "B1"], "a1 b1")
    assert requests.subscribed([]) == []
    assert requests.subscribed([]) == ["A1", "B1"]
    assert requests.subscribed([]) == [], "one reply too many says nothing"


def test_names_decide_where_there_are_any() -> None:
    requests = Requests(["A1", "B1"], each_symbol=True)
    requests.sent(["A1", "B1"], "a1 b1")
    assert requests.subscribed(["B1"]) == ["B1"]
    assert requests.subscribed(["B1"]) == []
    assert requests.refused(["A1"], "") == ["A1"]


def test_a_refusal_of_several_is_told_by_its_text_or_not_at_all() -> None:
    requests = Requests(["BTCUSDT", "1000BTCUSDT"], each_symbol=False)
    requests.sent(["BTCUSDT", "1000BTCUSDT"], "btcusdt 1000btcusdt")
    assert requests.refused([], "bad request") is None
    assert requests.refused([], "unknown symbol [1000BTCUSDT]") == ["1000BTCUSDT"]
    assert list(requests.pending) == ["BTCUSDT"]
