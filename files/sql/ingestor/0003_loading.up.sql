-- 0003_loading: where the loader is in each journal, and what each of its commits held.
-- edition: any   needs: 0002_instruments   locks: only the new relations
CREATE TABLE incarnation (
    id         uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    created_at timestamptz NOT NULL DEFAULT now(),
    only_one   boolean     NOT NULL DEFAULT true UNIQUE CHECK (only_one)
);
COMMENT ON TABLE incarnation IS 'One life of this database: a re-installed ingestor has another id, so its batches start anew.';
INSERT INTO incarnation DEFAULT VALUES;

CREATE TABLE streams (
    id       integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ingestor text    NOT NULL,
    name     text    NOT NULL,
    exchange text    NOT NULL,
    UNIQUE (ingestor, name)
);
COMMENT ON TABLE streams IS 'One journal folder, written by one recorder and loaded by one loader.';

CREATE TABLE load_batches (
    stream_id       integer     NOT NULL REFERENCES streams (id),
    batch           bigint      NOT NULL CHECK (batch > 0),
    segment         text        NOT NULL,
    from_offset     bigint      NOT NULL,
    to_offset       bigint      NOT NULL CHECK (to_offset >= from_offset),
    decoder_version text        NOT NULL,
    received_from   timestamptz,
    received_to     timestamptz,
    frames          bigint      NOT NULL,
    trades          bigint      NOT NULL,
    quotes          bigint      NOT NULL,
    book_events     bigint      NOT NULL,
    parked          bigint      NOT NULL,
    rejected        bigint      NOT NULL,
    committed_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (stream_id, batch)
);
COMMENT ON TABLE load_batches IS 'One loader commit each, numbered densely within the stream: what sync pulls by.';
COMMENT ON COLUMN load_batches.received_from IS 'Smallest received_at of the rows of this batch, null where it has none; sync prunes chunks by it.';

CREATE TABLE journal_positions (
    stream_id    integer NOT NULL REFERENCES streams (id),
    segment      text    NOT NULL,
    epoch        bigint  NOT NULL,
    frame        bigint  NOT NULL,
    frame_offset bigint  NOT NULL,
    line_offset  bigint  NOT NULL,
    done         boolean NOT NULL DEFAULT false,
    PRIMARY KEY (stream_id, segment)
);
COMMENT ON COLUMN journal_positions.frame IS 'Byte in the file where the zstd frame starts from which reading resumes.';
COMMENT ON COLUMN journal_positions.frame_offset IS 'The same place, counted in uncompressed bytes of the segment.';
COMMENT ON COLUMN journal_positions.line_offset IS 'Everything before this uncompressed byte of the segment is loaded.';

CREATE TABLE journal_damage (
    stream_id integer NOT NULL,
    batch     bigint  NOT NULL,
    segment   text    NOT NULL,
    from_byte bigint  NOT NULL,
    to_byte   bigint  NOT NULL,
    detail    text    NOT NULL,
    FOREIGN KEY (stream_id, batch) REFERENCES load_batches
);
COMMENT ON TABLE journal_damage IS 'Stretches of a segment file (compressed bytes) that could not be read.';

CREATE TABLE parked_frames (
    id             bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stream_id      integer     NOT NULL,
    batch          bigint      NOT NULL,
    segment        text        NOT NULL,
    line_offset    bigint      NOT NULL,
    line_length    integer     NOT NULL,
    epoch          bigint      NOT NULL,
    received_at    timestamptz NOT NULL,
    reason         text        NOT NULL CHECK (reason IN ('decode', 'unknown_instrument')),
    detail         text        NOT NULL,
    resolved_batch bigint,
    UNIQUE (stream_id, segment, line_offset),
    FOREIGN KEY (stream_id, batch) REFERENCES load_batches
);
COMMENT ON TABLE parked_frames IS 'Frames that could not be loaded, by reference to the journal; retried when the reason is gone.';

CREATE TABLE rejected_events (
    stream_id   integer     NOT NULL,
    batch       bigint      NOT NULL,
    segment     text        NOT NULL,
    line_offset bigint      NOT NULL,
    line_length integer     NOT NULL,
    received_at timestamptz NOT NULL,
    event_time  text        NOT NULL,
    channel     text        NOT NULL CHECK (channel IN ('trades', 'quotes', 'book_events')),
    native_id   text        NOT NULL,
    reason      text        NOT NULL,
    event       jsonb       NOT NULL,
    FOREIGN KEY (stream_id, batch) REFERENCES load_batches
);
COMMENT ON TABLE rejected_events IS 'Events whose exchange time is more than a day from their receive time: kept, never in a chunk.';
COMMENT ON COLUMN rejected_events.event_time IS 'ns since 1970 as sent; text, since it may lie outside what timestamptz holds.';

GRANT SELECT ON incarnation, streams, load_batches, journal_positions, journal_damage, parked_frames, rejected_events
TO cryptopip_sync_reader, cryptopip_reader;
GRANT SELECT ON incarnation TO cryptopip_loader;
GRANT SELECT, INSERT ON streams, load_batches, journal_damage, rejected_events TO cryptopip_loader;
GRANT SELECT, INSERT, UPDATE ON journal_positions, parked_frames TO cryptopip_loader;
