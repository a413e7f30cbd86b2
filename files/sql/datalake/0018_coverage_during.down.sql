-- 0018_coverage_during, taken back: intervals are found by their start alone, as 0005_coverage does.
CREATE OR REPLACE FUNCTION covered(of_instrument integer, of_channel text, during tstzrange) RETURNS tstzmultirange
STABLE PARALLEL SAFE LANGUAGE sql BEGIN ATOMIC
SELECT coalesce(range_agg(coverage_intervals.interval * during), '{}')
FROM coverage_intervals
WHERE
    coverage_intervals.instrument_id = of_instrument
    AND coverage_intervals.channel = of_channel
    AND coverage_intervals.started_at <= coalesce(upper(during), 'infinity')
    AND coverage_intervals.interval && during;
END;

DROP INDEX coverage_during;
