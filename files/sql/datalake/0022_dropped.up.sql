-- 0022_dropped: what retention took out of the history, and what came too late for it.
-- edition: any   needs: 0021_revocations   locks: only the new relations
CREATE TABLE dropped_chunks (
    channel    text        NOT NULL CHECK (channel IN ('trades', 'quotes', 'book_events', 'derivatives', 'liquidations')),
    during     tstzrange   NOT NULL CHECK (
        NOT isempty(during) AND lower_inc(during) AND NOT upper_inc(during) AND NOT lower_inf(during) AND NOT upper_inf(during)
    ),
    rows       bigint      NOT NULL CHECK (rows >= 0),
    dropped_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (channel, during)
);
COMMENT ON TABLE dropped_chunks IS
'Times of events that are no longer here; their digests stay, so that archives and copies are still held to them.';
COMMENT ON COLUMN dropped_chunks.rows IS 'How many they were, by their digests.';

CREATE TABLE late_rows (
    channel  text        NOT NULL CHECK (channel IN ('trades', 'quotes', 'book_events', 'derivatives', 'liquidations')),
    ingestor text        NOT NULL,
    day      timestamptz NOT NULL,
    rows     bigint      NOT NULL CHECK (rows > 0),
    seen_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (channel, ingestor, day)
);
COMMENT ON TABLE late_rows IS
'Rows that sync was given of a day that had been dropped: not merged, since nobody can tell any more which of them the history had.';

-- Sync owns no table: this is all that it can remove at once, and never what is new.
CREATE FUNCTION drop_chunk(of_channel text, during tstzrange) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF of_channel NOT IN ('trades', 'quotes', 'book_events', 'derivatives', 'liquidations') THEN
        RAISE EXCEPTION 'no channel %', of_channel;
    END IF;
    IF upper(during) IS NULL OR lower(during) IS NULL OR upper(during) > now() - INTERVAL '1 day' THEN
        RAISE EXCEPTION 'chunk % of % may still be merged into', during, of_channel;
    END IF;
    PERFORM drop_chunks(of_channel::regclass, older_than => upper(during), newer_than => lower(during));
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no chunk of % within %', of_channel, during;
    END IF;
    INSERT INTO dropped_chunks (channel, during, rows)
    SELECT of_channel, during, coalesce(sum(d.rows), 0) FROM digests AS d
    WHERE d.channel = of_channel AND d.hour >= lower(during) AND d.hour < upper(during)
    ON CONFLICT ON CONSTRAINT dropped_chunks_pkey DO UPDATE SET dropped_at = clock_timestamp();
END;
$$;
COMMENT ON FUNCTION drop_chunk(text, tstzrange) IS 'Drops a chunk of the history and notes it, in one transaction; its digests stay.';
REVOKE ALL ON FUNCTION drop_chunk(text, tstzrange) FROM public;
GRANT EXECUTE ON FUNCTION drop_chunk(text, tstzrange) TO cryptopip_sync_writer;

GRANT SELECT ON dropped_chunks, late_rows TO cryptopip_reader;
GRANT SELECT, DELETE ON dropped_chunks TO cryptopip_sync_writer;
GRANT SELECT, INSERT, UPDATE ON late_rows TO cryptopip_sync_writer;
