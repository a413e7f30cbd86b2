-- 0012_retention: what the pruner may drop, and what it noted while doing so.
-- edition: any   needs: 0011_pruner   locks: only the new relations
CREATE TABLE merged_marks (
    stream_id integer     NOT NULL REFERENCES streams (id),
    batch     bigint      NOT NULL,
    seen_at   timestamptz NOT NULL,
    PRIMARY KEY (stream_id, batch)
);
COMMENT ON TABLE merged_marks IS 'Up to which batch the datalake had merged when it was asked: a backup made later has it.';
COMMENT ON COLUMN merged_marks.seen_at IS 'By the datalake''s clock, as protections are.';

CREATE TABLE pruned_chunks (
    channel    text        NOT NULL CHECK (channel IN ('trades', 'quotes', 'book_events', 'derivatives', 'liquidations')),
    during     tstzrange   NOT NULL CHECK (NOT isempty(during) AND NOT lower_inf(during) AND NOT upper_inf(during)),
    dropped_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (channel, during)
);
COMMENT ON TABLE pruned_chunks IS 'Receive times whose rows were found in the datalake, each of them, and dropped here.';

-- The pruner owns no table: this is all that it can remove, and never what may still be written.
CREATE FUNCTION prune_chunk(of_channel text, during tstzrange) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF of_channel NOT IN ('trades', 'quotes', 'book_events', 'derivatives', 'liquidations') THEN
        RAISE EXCEPTION 'no channel %', of_channel;
    END IF;
    IF upper(during) IS NULL OR lower(during) IS NULL OR upper(during) > now() THEN
        RAISE EXCEPTION 'chunk % of % may still be written', during, of_channel;
    END IF;
    PERFORM drop_chunks(of_channel::regclass, older_than => upper(during), newer_than => lower(during));
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no chunk of % within %', of_channel, during;
    END IF;
    INSERT INTO pruned_chunks (channel, during) VALUES (of_channel, during)
    ON CONFLICT ON CONSTRAINT pruned_chunks_pkey DO UPDATE SET dropped_at = clock_timestamp();
END;
$$;
COMMENT ON FUNCTION prune_chunk(text, tstzrange) IS 'Drops a chunk of received rows and notes it, in one transaction.';
REVOKE ALL ON FUNCTION prune_chunk(text, tstzrange) FROM public;
GRANT EXECUTE ON FUNCTION prune_chunk(text, tstzrange) TO cryptopip_pruner;

GRANT SELECT ON merged_marks, pruned_chunks TO cryptopip_reader;
GRANT SELECT, INSERT, DELETE ON merged_marks TO cryptopip_pruner;
GRANT SELECT ON pruned_chunks, incarnation, streams, load_batches, journal_positions, journal_damage, parked_frames,
trades, quotes, book_events, derivatives, liquidations TO cryptopip_pruner;
