-- 0017_tardis: drops ways of looking at the history, none of it.
DROP VIEW tardis_liquidations;
DROP VIEW tardis_derivative_ticker;
DROP VIEW tardis_incremental_book_l2;
DROP VIEW tardis_quotes;
DROP VIEW tardis_trades;
DROP FUNCTION microseconds(timestamptz);
