-- 0018_coverage_during: intervals are found by when they were, so that a day costs the same however long the history is.
-- edition: any   needs: 0010_channels   locks: coverage, for writing, while the index is built
-- The instrument stands as a range of one, for which no extension is needed.
CREATE INDEX coverage_during ON coverage USING gist (
    int4range(instrument_id, instrument_id, '[]'), tstzrange(started_at, ended_at, '[]')
);

CREATE OR REPLACE FUNCTION covered(of_instrument integer, of_channel text, during tstzrange) RETURNS tstzmultirange
STABLE PARALLEL SAFE LANGUAGE sql BEGIN ATOMIC
SELECT coalesce(range_agg(known.interval * during), '{}')
FROM (
    SELECT
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
