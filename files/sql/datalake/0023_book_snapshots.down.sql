-- 0023_book_snapshots: back to the functions of 0012 and 0014; drops the hourly books, which can be made
-- again from the book events.
DROP TRIGGER book_alive_longer ON connections;
DROP TRIGGER book_alive ON connections;
DROP FUNCTION book_connection_notice();
DROP INDEX coverage_open;
DROP TRIGGER book_uncovered ON coverage;
DROP TRIGGER book_covered_otherwise ON coverage;
DROP TRIGGER book_covered ON coverage;
DROP FUNCTION book_coverage_notice();
DROP FUNCTION book_notice_hours(integer[], timestamptz[], timestamptz[]);
DROP TRIGGER book_updated ON digests;
DROP TRIGGER book_inserted ON digests;
DROP FUNCTION book_notice();
CREATE OR REPLACE FUNCTION book_at_update(of_instrument integer, update_id bigint, depth integer DEFAULT 20)
RETURNS TABLE (
    unknown text, side text, level bigint, price numeric, amount numeric,
    last_id bigint, "time" timestamptz, snapshot_id bigint, bid_horizon numeric, ask_horizon numeric
) STABLE LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
#variable_conflict use_column
DECLARE
    base book_events;
    chain int8multirange;
    reached bigint;
    hole int8range;
    of_time timestamptz;
BEGIN
    SELECT b.* INTO base FROM book_events AS b
    WHERE b.instrument_id = of_instrument AND b.is_snapshot AND b.last_id <= book_at_update.update_id
    ORDER BY b.last_id DESC, b.received_at LIMIT 1;
    IF NOT FOUND THEN
        RETURN QUERY SELECT
            format('no snapshot at or before update %s', book_at_update.update_id), NULL, NULL::bigint, NULL::numeric,
            NULL::numeric, NULL::bigint, NULL::timestamptz, NULL::bigint, NULL::numeric, NULL::numeric;
        RETURN;
    END IF;
    SELECT
        coalesce(
            range_agg(int8range(coalesce(b.first_id, b.previous_id + 1), b.last_id, '[]'))
            FILTER (WHERE coalesce(b.first_id, b.previous_id + 1) <= b.last_id), '{}'
        ),
        coalesce(max(b.last_id), base.last_id),
        coalesce(max(b.time), base.time)
    INTO chain, reached, of_time
    FROM book_events AS b
    WHERE
        b.instrument_id = of_instrument AND NOT b.is_snapshot
        AND b.last_id > base.last_id AND b.last_id <= book_at_update.update_id;
    SELECT r INTO hole
    FROM unnest(int8multirange(int8range(base.last_id, book_at_update.update_id, '(]')) - chain) AS r
    ORDER BY r LIMIT 1;
    IF hole IS NOT NULL THEN
        RETURN QUERY SELECT
            format(
                'updates %s to %s after snapshot %s are not there or end behind %s',
                lower(hole), upper(hole) - 1, base.last_id, book_at_update.update_id
            ), NULL, NULL::bigint, NULL::numeric, NULL::numeric, reached, of_time, base.last_id, NULL::numeric, NULL::numeric;
        RETURN;
    END IF;
    RETURN QUERY
    WITH events AS (
        SELECT b.last_id, b.bid_prices, b.bid_amounts, b.ask_prices, b.ask_amounts FROM book_events AS b
        WHERE
            b.instrument_id = of_instrument AND NOT b.is_snapshot
            AND b.last_id > base.last_id AND b.last_id <= book_at_update.update_id
        UNION ALL
        SELECT base.last_id, base.bid_prices, base.bid_amounts, base.ask_prices, base.ask_amounts
    ),
    changes AS (
        SELECT 'bid' AS side, l.price, l.amount, e.last_id
        FROM events AS e CROSS JOIN LATERAL unnest(e.bid_prices, e.bid_amounts) AS l (price, amount)
        UNION ALL
        SELECT 'ask', l.price, l.amount, e.last_id
        FROM events AS e CROSS JOIN LATERAL unnest(e.ask_prices, e.ask_amounts) AS l (price, amount)
    ),
    horizon AS (
        SELECT
            (SELECT min(p) FROM unnest(base.bid_prices) AS p) AS bid,
            (SELECT max(p) FROM unnest(base.ask_prices) AS p) AS ask
    ),
    newest AS (
        SELECT DISTINCT ON (c.side, c.price) c.side, c.price, c.amount
        FROM changes AS c
        ORDER BY c.side, c.price, c.last_id DESC
    ),
    ranked AS (
        SELECT
            n.side, n.price, n.amount,
            row_number() OVER (PARTITION BY n.side ORDER BY CASE n.side WHEN 'bid' THEN -n.price ELSE n.price END) AS level
        FROM newest AS n CROSS JOIN horizon AS h
        WHERE n.amount <> 0 AND CASE n.side WHEN 'bid' THEN n.price >= h.bid ELSE n.price <= h.ask END
    )
    SELECT NULL, r.side, r.level, r.price, r.amount, reached, of_time, base.last_id, h.bid, h.ask
    FROM ranked AS r CROSS JOIN horizon AS h
    WHERE r.level <= book_at_update.depth
    ORDER BY r.side DESC, r.level;
END;
$$;
CREATE OR REPLACE FUNCTION epoch_book(
    of_instrument integer, of_ingestor text, of_epoch bigint, time_until timestamptz, received_until timestamptz
)
RETURNS TABLE (
    side text, level bigint, price numeric, amount numeric, last_id bigint, "time" timestamptz, snapshot_id bigint,
    bid_horizon numeric, ask_horizon numeric
) STABLE LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
#variable_conflict use_column
DECLARE
    base book_events;
    kept integer;
BEGIN
    SELECT b.* INTO base FROM book_events AS b
    WHERE
        b.instrument_id = of_instrument AND b.is_snapshot AND b.ingestor = of_ingestor AND b.epoch = of_epoch
        AND b.time <= coalesce(time_until, received_until + INTERVAL '1 day')
        AND b.time > coalesce(time_until, received_until) - INTERVAL '26 hours'
        AND b.received_at <= coalesce(received_until, 'infinity')
    ORDER BY b.received_at DESC, b.ordinal DESC LIMIT 1;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT d.depth INTO kept FROM instruments AS i INNER JOIN identities AS d ON d.exchange = i.exchange
    WHERE i.id = of_instrument AND d.channel = 'book_events';
    RETURN QUERY
    WITH events AS (
        SELECT b.* FROM book_events AS b
        WHERE
            b.instrument_id = of_instrument AND NOT b.is_snapshot AND b.ingestor = of_ingestor AND b.epoch = of_epoch
            AND b.time <= coalesce(time_until, received_until + INTERVAL '1 day')
            AND b.time > base.time - INTERVAL '1 minute'
            AND b.received_at <= coalesce(received_until, 'infinity')
            AND CASE
                WHEN b.last_id IS NOT NULL AND base.last_id IS NOT NULL
                    THEN b.last_id > base.last_id AND b.received_at > base.received_at - INTERVAL '1 minute'
                ELSE (b.received_at, b.ordinal) > (base.received_at, base.ordinal)
            END
        UNION ALL
        SELECT (base).*
    ),
    changes AS (
        SELECT 'bid' AS side, l.price, l.amount, NOT e.is_snapshot AS is_update, e.received_at, e.ordinal, l.place
        FROM events AS e
        CROSS JOIN LATERAL unnest(e.bid_prices, e.bid_amounts) WITH ORDINALITY AS l (price, amount, place)
        UNION ALL
        SELECT 'ask', l.price, l.amount, NOT e.is_snapshot, e.received_at, e.ordinal, l.place
        FROM events AS e
        CROSS JOIN LATERAL unnest(e.ask_prices, e.ask_amounts) WITH ORDINALITY AS l (price, amount, place)
    ),
    newest AS (
        SELECT DISTINCT ON (c.side, c.price) c.side, c.price, c.amount
        FROM changes AS c
        ORDER BY c.side, c.price, c.is_update DESC, c.received_at DESC, c.ordinal DESC, c.place DESC
    ),
    ranked AS (
        SELECT
            n.side, n.price, n.amount,
            row_number() OVER (PARTITION BY n.side ORDER BY CASE n.side WHEN 'bid' THEN -n.price ELSE n.price END) AS level
        FROM newest AS n
        WHERE n.amount <> 0
    ),
    -- A venue that keeps so many levels up to date says nothing of those that fall out, and tells them again if they
    -- come back: what is beyond is not known. Where it sends the whole book there is no beyond.
    horizon AS (
        SELECT
            min(r.price) FILTER (WHERE r.side = 'bid' AND r.level = kept) AS bid,
            max(r.price) FILTER (WHERE r.side = 'ask' AND r.level = kept) AS ask
        FROM ranked AS r
    ),
    reached AS (SELECT max(e.last_id) AS last_id, max(e.time) AS at FROM events AS e)
    SELECT r.side, r.level, r.price, r.amount, reached.last_id, reached.at, base.last_id, h.bid, h.ask
    FROM horizon AS h CROSS JOIN reached
    LEFT JOIN ranked AS r ON r.level <= coalesce(kept, r.level)
    ORDER BY r.side DESC, r.level;
END;
$$;
DROP FUNCTION epoch_state(integer, text, bigint, timestamptz, timestamptz);
DROP FUNCTION chain_state(integer, bigint, timestamptz);
DROP FUNCTION are_books_settled(integer, timestamptz, timestamptz);
DROP TABLE book_hours;
DROP TABLE book_snapshots;
