-- One row per exchange and channel of the datalake, as one line of JSON for bin/lib/summary.py.
WITH clock AS (
    SELECT clock_timestamp() AS now
),

events AS (
    SELECT
        events.instrument_id,
        events.channel,
        count(*) AS total,
        count(*) FILTER (WHERE events.received_at > clock.now - INTERVAL '60 seconds') AS recent,
        min(events.received_at) FILTER (WHERE events.received_at > clock.now - INTERVAL '60 seconds') AS recent_since,
        max(events.received_at) AS newest
    FROM (
        SELECT instrument_id, received_at, 'trades' AS channel FROM trades
        UNION ALL
        SELECT instrument_id, received_at, 'quotes' AS channel FROM quotes
        UNION ALL
        SELECT instrument_id, received_at, 'book_events' AS channel FROM book_events
    ) AS events
    CROSS JOIN clock
    GROUP BY events.instrument_id, events.channel
),

listening AS (
    SELECT
        instrument_id,
        channel,
        count(DISTINCT ingestor) AS ingestors,
        min(lower(interval)) AS since,
        max(upper(interval)) AS until
    FROM coverage_intervals
    GROUP BY instrument_id, channel
),

holes AS (
    SELECT
        listening.instrument_id,
        listening.channel,
        count(hole) AS number,
        coalesce(sum(extract(EPOCH FROM upper(hole) - lower(hole))), 0) AS seconds
    FROM listening
    LEFT JOIN LATERAL unnest(
        gaps(listening.instrument_id, listening.channel, tstzrange(listening.since, listening.until))
    ) AS hole ON true
    GROUP BY listening.instrument_id, listening.channel
)

SELECT coalesce(json_agg(answer ORDER BY answer.exchange, answer.channel), '[]')
FROM (
    SELECT
        instruments.exchange,
        events.channel,
        count(*) AS instruments,
        max(listening.ingestors) AS ingestors,
        sum(events.total) AS total,
        sum(events.recent) / greatest(extract(EPOCH FROM max(clock.now) - min(events.recent_since)), 1) AS per_second,
        extract(EPOCH FROM max(clock.now) - max(events.newest)) AS lag,
        sum(holes.number) AS gaps,
        sum(holes.seconds) AS gap_seconds,
        extract(EPOCH FROM max(listening.until) - min(listening.since)) AS covered
    FROM events
    CROSS JOIN clock
    INNER JOIN instruments ON events.instrument_id = instruments.id
    LEFT JOIN listening ON events.instrument_id = listening.instrument_id AND events.channel = listening.channel
    LEFT JOIN holes ON events.instrument_id = holes.instrument_id AND events.channel = holes.channel
    GROUP BY instruments.exchange, events.channel
) AS answer;
