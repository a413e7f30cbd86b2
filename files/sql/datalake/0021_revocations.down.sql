-- Revoked stretches count as covered again.
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
    AND coverage.epoch = connections.epoch;
COMMENT ON VIEW coverage_intervals IS 'Coverage as ranges of receive time, open ones as far as their connection is known to have been alive.';
DROP TABLE doubts, comparisons;
ALTER TABLE coverage DROP COLUMN revoked;
