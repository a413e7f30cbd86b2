-- 0021_revocations: an ingestor that did not receive what another did cannot have listened: its coverage is revoked there.
-- edition: any   needs: 0018_coverage_during   locks: coverage, exclusively, while an index of no row is built
ALTER TABLE coverage ADD COLUMN revoked tstzmultirange NOT NULL DEFAULT '{}';
CREATE INDEX coverage_revoked ON coverage (instrument_id, channel) WHERE revoked <> '{}';
COMMENT ON COLUMN coverage.revoked IS
'Receive times to which the interval does not testify: between the events received next to such as only others received. '
'Without an end where none has been received since; written by sync, whatever the order in which ingestors are merged.';

CREATE TABLE comparisons (
    incarnation uuid        NOT NULL REFERENCES sources (incarnation),
    stream      text        NOT NULL,
    exchange    text        NOT NULL,
    until       timestamptz NOT NULL,
    PRIMARY KEY (incarnation, stream)
);
COMMENT ON TABLE comparisons IS 'How far sync has looked whether a stream received what others did.';
COMMENT ON COLUMN comparisons.until IS 'By the time of the events; what comes in later from before this is noted in doubts.';
-- What is merged already is not looked at again: its ingestors may have pruned it.
INSERT INTO comparisons (incarnation, stream, exchange, until)
SELECT
    connections.incarnation,
    connections.stream,
    min(connections.exchange) AS exchange,
    max(connections.alive_until) AS until
FROM connections
GROUP BY connections.incarnation, connections.stream;

CREATE TABLE doubts (
    incarnation   uuid        NOT NULL REFERENCES sources (incarnation),
    stream        text        NOT NULL,
    channel       text        NOT NULL CHECK (channel IN ('trades', 'quotes', 'book_events', 'derivatives', 'liquidations')),
    instrument_id integer     NOT NULL,
    hour          timestamptz NOT NULL,
    first_time    timestamptz NOT NULL,
    last_time     timestamptz NOT NULL CHECK (last_time >= first_time),
    PRIMARY KEY (incarnation, stream, channel, instrument_id, hour)
);
COMMENT ON TABLE doubts IS 'Events that came in from a time for which the stream had been compared: it is to be compared there again.';
GRANT SELECT ON comparisons, doubts TO cryptopip_reader;
GRANT SELECT, INSERT, UPDATE ON comparisons TO cryptopip_sync_writer;
GRANT SELECT, INSERT, UPDATE, DELETE ON doubts TO cryptopip_sync_writer;

-- As in 0005 where nothing is revoked; else a row for each piece that is left, the ids only where they are its own.
CREATE OR REPLACE VIEW coverage_intervals AS
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
    AND coverage.epoch = connections.epoch
WHERE coverage.revoked = '{}'
UNION ALL
SELECT
    whole.incarnation,
    whole.id,
    whole.ingestor,
    whole.epoch,
    whole.instrument_id,
    whole.channel,
    lower(piece.interval) AS started_at,
    piece.interval,
    CASE WHEN lower(piece.interval) = lower(whole.interval) THEN whole.first_id END AS first_id,
    CASE WHEN upper(piece.interval) = upper(whole.interval) THEN whole.last_id END AS last_id,
    CASE WHEN lower(piece.interval) = lower(whole.interval) THEN whole.first_time END AS first_time,
    CASE WHEN upper(piece.interval) = upper(whole.interval) THEN whole.last_time END AS last_time,
    whole.proof,
    CASE WHEN upper(piece.interval) = upper(whole.interval) THEN whole.ended_by ELSE 'sequence' END AS ended_by
FROM (
    SELECT
        coverage.incarnation,
        coverage.id,
        coverage.ingestor,
        coverage.epoch,
        coverage.instrument_id,
        coverage.channel,
        coverage.revoked,
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
        AND coverage.epoch = connections.epoch
    WHERE coverage.revoked <> '{}'
) AS whole
CROSS JOIN LATERAL unnest(tstzmultirange(whole.interval) - whole.revoked) AS piece (interval);
COMMENT ON VIEW coverage_intervals IS
'Coverage as ranges of receive time, open ones as far as their connection is known to have been alive, without what is revoked.';

CREATE OR REPLACE FUNCTION covered(of_instrument integer, of_channel text, during tstzrange) RETURNS tstzmultirange
STABLE PARALLEL SAFE LANGUAGE sql BEGIN ATOMIC
SELECT coalesce(range_agg(tstzmultirange(known.interval * during) - known.revoked), '{}')
FROM (
    SELECT
        coverage.revoked,
        tstzrange(
            coverage.started_at,
            coalesce(coverage.ended_at, greatest(connections.alive_until, coverage.started_at)),
            '[]'
        ) AS interval
    FROM coverage
    LEFT JOIN connections
        ON coverage.incarnation = connections.incarnation
        AND coverage.stream = connections.stream
        AND coverage.epoch = connections.epoch
    WHERE
        int4range(coverage.instrument_id, coverage.instrument_id, '[]') @> of_instrument
        AND coverage.channel = of_channel
        AND tstzrange(coverage.started_at, coverage.ended_at, '[]') && during
) AS known
WHERE known.interval && during;
END;
