-- 0012_book_holes: back to the function of 0008, which knows first ids only; no data is touched.
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
        coalesce(range_agg(int8range(b.first_id, b.last_id, '[]')), '{}'),
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
