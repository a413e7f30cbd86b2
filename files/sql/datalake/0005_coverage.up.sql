-- 0005_coverage: from when to when which ingestor was provably listening, and what that leaves open.
-- edition: any   needs: 0003_sync   locks: only the new relations
CREATE TABLE connections (
    incarnation uuid        NOT NULL REFERENCES sources (incarnation),
    stream      text        NOT NULL,
    ingestor    text        NOT NULL,
    exchange    text        NOT NULL,
    epoch       bigint      NOT NULL,
    opened_at   timestamptz NOT NULL,
    alive_until timestamptz NOT NULL,
    closed_at   timestamptz,
    ended_by    text        CHECK (ended_by IN ('disconnect', 'sequence', 'stall', 'crash', 'disk', 'shutdown', 'handover', 'venue')),
    batch       bigint      NOT NULL,
    PRIMARY KEY (incarnation, stream, epoch),
    CHECK ((closed_at IS NULL) = (ended_by IS NULL))
);
COMMENT ON TABLE connections IS 'Every connection of every ingestor, as far as merged.';
COMMENT ON COLUMN connections.stream IS 'ingestor/name, as in watermarks.';
COMMENT ON COLUMN connections.alive_until IS 'Receive time of the last committed frame or heartbeat: open intervals reach up to here.';
COMMENT ON COLUMN connections.batch IS 'The load batch on the ingestor that changed this row last.';
COMMENT ON COLUMN watermarks.stream IS 'ingestor/name: one database may hold the streams of several ingestors (a replay beside the recorder).';

CREATE TABLE coverage (
    incarnation   uuid        NOT NULL REFERENCES sources (incarnation),
    id            bigint      NOT NULL,
    stream        text        NOT NULL,
    ingestor      text        NOT NULL,
    epoch         bigint      NOT NULL,
    instrument_id integer     NOT NULL,
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
    PRIMARY KEY (incarnation, id),
    CHECK ((ended_at IS NULL) = (ended_by IS NULL))
);
CREATE INDEX coverage_instrument ON coverage (instrument_id, channel, started_at);
COMMENT ON TABLE coverage IS 'Receive time, UTC, during which an epoch was provably listening; a book only while it is synchronised.';
COMMENT ON COLUMN coverage.id IS 'The id of this row on its ingestor.';
COMMENT ON COLUMN coverage.ended_at IS 'Null while open: it then reaches up to alive_until of its connection.';
COMMENT ON COLUMN coverage.last_id IS 'Last id inside the interval; written when it ends.';

-- A connection's row comes with its newest batch, a coverage row with its own, so in the middle of a long pull the
-- connection may still be missing: such an interval counts from its start to its start, never further than proven.
CREATE VIEW coverage_intervals AS
SELECT
    coverage.incarnation,
    coverage.id,
    coverage.ingestor,
    coverage.epoch,
    coverage.instrument_id,
    coverage.channel,
    coverage.started_at,
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
LEFT JOIN connections
    ON coverage.incarnation = connections.incarnation
    AND coverage.stream = connections.stream
    AND coverage.epoch = connections.epoch;
COMMENT ON VIEW coverage_intervals IS 'Coverage as ranges of receive time, open ones as far as their connection is known to have been alive.';

CREATE FUNCTION covered(of_instrument integer, of_channel text, during tstzrange) RETURNS tstzmultirange
STABLE PARALLEL SAFE LANGUAGE sql BEGIN ATOMIC
SELECT coalesce(range_agg(coverage_intervals.interval * during), '{}')
FROM coverage_intervals
WHERE
    coverage_intervals.instrument_id = of_instrument
    AND coverage_intervals.channel = of_channel
    AND coverage_intervals.started_at <= coalesce(upper(during), 'infinity')
    AND coverage_intervals.interval && during;
END;
COMMENT ON FUNCTION covered(integer, text, tstzrange) IS 'When any ingestor was listening, within the range given.';

CREATE FUNCTION recorded(of_instrument integer, of_channel text, during tstzrange) RETURNS tstzmultirange
STABLE PARALLEL SAFE LANGUAGE sql BEGIN ATOMIC
SELECT coalesce(range_agg(recording.during * recorded.during), '{}')
FROM recording
WHERE
    recording.instrument_id = of_instrument
    AND recording.channel = of_channel
    AND recording.during && recorded.during;
END;
COMMENT ON FUNCTION recorded(integer, text, tstzrange) IS 'When recording was meant, within the range given.';

-- Both operands are empty multiranges rather than null where there is no row, so that an instrument that was meant
-- and never recorded is one gap and not none.
CREATE FUNCTION gaps(of_instrument integer, of_channel text, during tstzrange) RETURNS tstzmultirange
STABLE PARALLEL SAFE LANGUAGE sql BEGIN ATOMIC
SELECT recorded(of_instrument, of_channel, during) - covered(of_instrument, of_channel, during);
END;
COMMENT ON FUNCTION gaps(integer, text, tstzrange) IS 'When recording was meant and no ingestor was listening, within the range given (give it an end).';

GRANT SELECT ON connections, coverage, coverage_intervals TO cryptopip_reader;
GRANT SELECT, INSERT, UPDATE ON connections, coverage TO cryptopip_sync_writer;
GRANT SELECT ON coverage_intervals TO cryptopip_sync_writer;
