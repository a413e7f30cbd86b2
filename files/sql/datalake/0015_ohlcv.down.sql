-- 0015_ohlcv: drops the bars; they can be made again from the trades.
DROP TRIGGER ohlcv_updated ON digests;
DROP TRIGGER ohlcv_inserted ON digests;
DROP FUNCTION ohlcv_notice();
DROP TABLE ohlcv_hours;
DROP VIEW ohlcv;
DROP TABLE ohlcv_1d;
DROP TABLE ohlcv_1h;
DROP TABLE ohlcv_1m;
DROP TABLE ohlcv_1s;
