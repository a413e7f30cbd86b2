-- 0001_watchlists: drops the operator's lists and queries.
DROP TABLE saved_queries, watchlist_instruments, watchlists;
