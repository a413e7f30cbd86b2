-- 0020_backfills: the gaps of trades that were looked into: what the exchange's own history had for them, and how far.
-- edition: any   needs: 0004_events   locks: only the new relation
CREATE TABLE backfills (
    instrument_id integer     NOT NULL REFERENCES instruments (id),
    gap           tstzrange   NOT NULL CHECK (
        NOT isempty(gap) AND lower_inc(gap) AND upper_inc(gap) AND NOT lower_inf(gap) AND NOT upper_inf(gap)
    ),
    after_id      numeric     CHECK (after_id = trunc(after_id)),
    before_id     numeric     CHECK (before_id = trunc(before_id)),
    position      numeric     CHECK (position = trunc(position)),
    state         text        NOT NULL CHECK (state IN ('open', 'empty', 'mended', 'out_of_reach')),
    rows          bigint      NOT NULL DEFAULT 0 CHECK (rows >= 0),
    detail        text        NOT NULL DEFAULT '',
    started_at    timestamptz NOT NULL DEFAULT now(),
    changed_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (instrument_id, gap)
);
COMMENT ON TABLE backfills IS 'Written by cryptopip backfill; trades that it added have the ingestor backfill:rest.';
COMMENT ON COLUMN backfills.gap IS 'Receive time in which nobody was listening, as it was when it was looked into.';
COMMENT ON COLUMN backfills.after_id IS 'The last trade id known before the gap; null where nobody had listened before.';
COMMENT ON COLUMN backfills.before_id IS 'The first trade id known after the gap.';
COMMENT ON COLUMN backfills.position IS 'Trades with this id and later are done; they are filled backwards from before_id.';
COMMENT ON COLUMN backfills.state IS
'open: not done yet; empty: ids prove that nothing was missed; mended: all that was missed is there; '
'out_of_reach: some of it the exchange does not tell (any more).';
COMMENT ON COLUMN backfills.rows IS 'Trades that were added to the history.';
GRANT SELECT ON backfills TO cryptopip_reader;
GRANT SELECT, INSERT, UPDATE ON backfills TO cryptopip_sync_writer;
COMMENT ON COLUMN trades.ingestor IS 'Who received the copy merged first; backfill:rest where nobody did and the exchange told it later.';
