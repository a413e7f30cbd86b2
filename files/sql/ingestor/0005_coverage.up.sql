-- 0005_coverage: from when to when each connection was provably listening, per instrument and channel.
-- edition: any   needs: 0003_loading   locks: only the new relations
CREATE TABLE connections (
    stream_id   integer     NOT NULL REFERENCES streams (id),
    epoch       bigint      NOT NULL,
    opened_at   timestamptz NOT NULL,
    alive_until timestamptz NOT NULL,
    closed_at   timestamptz,
    ended_by    text        CHECK (ended_by IN ('disconnect', 'sequence', 'stall', 'crash', 'disk', 'shutdown', 'handover', 'venue')),
    batch       bigint      NOT NULL,
    PRIMARY KEY (stream_id, epoch),
    CHECK ((closed_at IS NULL) = (ended_by IS NULL))
);
COMMENT ON COLUMN connections.alive_until IS 'Receive time of the last committed frame or heartbeat: open intervals reach up to here.';
COMMENT ON COLUMN connections.batch IS 'The last batch that changed this row: what sync pulls by.';

CREATE TABLE coverage (
    id            bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stream_id     integer     NOT NULL,
    epoch         bigint      NOT NULL,
    instrument_id integer     NOT NULL REFERENCES instruments (id),
    channel       text        NOT NULL CHECK (channel IN ('trades', 'quotes', 'book_events')),
    started_at    timestamptz NOT NULL,
    ended_at      timestamptz CHECK (ended_at >= started_at),
    first_id      text,
    last_id       text,
    first_time    timestamptz,
    last_time     timestamptz,
    proof         text        NOT NULL CHECK (proof IN ('sequence', 'heartbeat')),
    ended_by      text        CHECK (ended_by IN ('disconnect', 'sequence', 'stall', 'crash', 'disk', 'shutdown', 'handover', 'venue')),
    batch         bigint      NOT NULL,
    FOREIGN KEY (stream_id, epoch) REFERENCES connections,
    CHECK ((ended_at IS NULL) = (ended_by IS NULL))
);
CREATE UNIQUE INDEX coverage_one_open ON coverage (stream_id, epoch, instrument_id, channel) WHERE ended_at IS NULL;
CREATE INDEX coverage_batch ON coverage (stream_id, batch);
COMMENT ON TABLE coverage IS 'Receive time, UTC, during which this epoch was provably listening; a book only while it is synchronised.';
COMMENT ON COLUMN coverage.ended_at IS 'Null while open: it then reaches up to alive_until of its connection.';
COMMENT ON COLUMN coverage.last_id IS 'Last id inside the interval; written when it ends.';

CREATE VIEW coverage_intervals AS
SELECT
    coverage.id,
    streams.ingestor,
    coverage.epoch,
    coverage.instrument_id,
    coverage.channel,
    tstzrange(
        coverage.started_at,
        coalesce(coverage.ended_at, greatest(connections.alive_until, coverage.started_at)),
        '[]'
    ) AS interval,
    coverage.first_id,
    coverage.last_id,
    coverage.first_time,
    coverage.last_time,
    coverage.proof,
    coverage.ended_by
FROM coverage
INNER JOIN connections ON coverage.stream_id = connections.stream_id AND coverage.epoch = connections.epoch
INNER JOIN streams ON coverage.stream_id = streams.id;

GRANT SELECT ON connections, coverage, coverage_intervals TO cryptopip_sync_reader, cryptopip_reader;
GRANT SELECT, INSERT, UPDATE ON connections, coverage TO cryptopip_loader;
