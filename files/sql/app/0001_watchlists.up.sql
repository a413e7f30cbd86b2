-- 0001_watchlists: the operator's own small database beside the datalake.
-- edition: any   locks: only the new relations
CREATE TABLE watchlists (
    name       text        PRIMARY KEY CHECK (name <> ''),
    note       text        NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE watchlist_instruments (
    watchlist text NOT NULL REFERENCES watchlists (name) ON UPDATE CASCADE ON DELETE CASCADE,
    exchange  text NOT NULL,
    symbol    text NOT NULL,
    PRIMARY KEY (watchlist, exchange, symbol)
);
CREATE TABLE saved_queries (
    name       text        PRIMARY KEY CHECK (name <> ''),
    query      text        NOT NULL,
    note       text        NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE watchlists IS 'Named lists of instruments an operator keeps an eye on.';
