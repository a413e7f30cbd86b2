-- 0007_sync_conflicts: copies of one event that contradict each other; the copy merged first stays in the history.
-- edition: any   needs: 0003_sync   locks: only the new relations
CREATE TABLE sync_conflicts (
    instrument_id integer     NOT NULL,
    channel       text        NOT NULL CHECK (channel IN ('trades', 'quotes', 'book_events')),
    event_id      text        NOT NULL,
    refused_hash  bigint      NOT NULL,
    time          timestamptz NOT NULL,
    ingestor      text        NOT NULL,
    epoch         bigint      NOT NULL,
    kept          jsonb       NOT NULL,
    refused       jsonb       NOT NULL,
    seen_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (instrument_id, channel, event_id, refused_hash)
);
COMMENT ON TABLE sync_conflicts IS 'Equal identity, other payload: found while merging, never merged, one row for each different payload.';
COMMENT ON COLUMN sync_conflicts.event_id IS 'Trade id, update id, or kind and first-last update id.';
COMMENT ON COLUMN sync_conflicts.refused_hash IS 'event_hash of the payload that was refused.';
COMMENT ON COLUMN sync_conflicts.ingestor IS 'Whose copy was refused.';
GRANT SELECT ON sync_conflicts TO cryptopip_reader;
GRANT SELECT, INSERT ON sync_conflicts TO cryptopip_sync_writer;
