-- 0008_books: an order book at a moment or an update id, as far as it is provably known; the row-per-level shape.
-- edition: any   needs: 0005_coverage   locks: only the new relations
CREATE VIEW book_levels AS
SELECT
    book_events.time,
    book_events.received_at,
    book_events.instrument_id,
    book_events.is_snapshot,
    book_events.first_id,
    book_events.last_id,
    side.name AS side,
    levels.price,
    levels.amount
FROM book_events
CROSS JOIN LATERAL (
    VALUES
    ('bid', book_events.bid_prices, book_events.bid_amounts),
    ('ask', book_events.ask_prices, book_events.ask_amounts)
) AS side (name, prices, amounts)
CROSS JOIN LATERAL unnest(side.prices, side.amounts) AS levels (price, amount);
COMMENT ON VIEW book_levels IS 'book_events, one row per level; amount 0 deletes the level.';

-- Every update carries absolute amounts as of its last id, so the book at an id is, per price, the newest event up to
-- there, on top of a snapshot; that holds too where two ingestors saw different event boundaries. It is known only if
-- the ids between snapshot and target have no hole. Levels worse than the snapshot's worst are known only where they
-- changed since, so they are left out and the snapshot's worst price is the horizon.
CREATE FUNCTION book_at_update(of_instrument integer, update_id bigint, depth integer DEFAULT 20)
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
COMMENT ON FUNCTION book_at_update(integer, bigint, integer) IS
'The book right after an update, best levels first; one row with a reason in column unknown where it cannot be told. '
'Levels beyond bid_horizon and ask_horizon (the worst prices of the snapshot it rests on) are not known and not listed.';

-- A moment without an event is known if the chain goes on behind it, which proves that nothing happened in between,
-- or if an ingestor was listening to a synchronised book at that moment.
CREATE FUNCTION book_at(of_instrument integer, at timestamptz, depth integer DEFAULT 20)
RETURNS TABLE (
    unknown text, side text, level bigint, price numeric, amount numeric,
    last_id bigint, "time" timestamptz, snapshot_id bigint, bid_horizon numeric, ask_horizon numeric
) STABLE LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
#variable_conflict use_column
DECLARE
    target bigint;
    back interval;
BEGIN
    -- Recorders write a snapshot every hour, so a day back there is one or the book is not known; windows keep the
    -- search away from the chunks of years.
    FOREACH back IN ARRAY ARRAY['2 hours', '26 hours']::interval[] LOOP
        SELECT max(b.last_id) INTO target FROM book_events AS b
        WHERE b.instrument_id = of_instrument AND b.time <= book_at.at AND b.time > book_at.at - back;
        EXIT WHEN target IS NOT NULL;
    END LOOP;
    IF target IS NULL THEN
        RETURN QUERY SELECT
            format('no book event within 26 hours before %s', book_at.at), NULL, NULL::bigint, NULL::numeric,
            NULL::numeric, NULL::bigint, NULL::timestamptz, NULL::bigint, NULL::numeric, NULL::numeric;
    ELSIF NOT EXISTS (
        SELECT FROM book_events AS b
        WHERE
            b.instrument_id = of_instrument AND NOT b.is_snapshot AND b.first_id <= target + 1 AND b.last_id > target
            AND b.time > book_at.at AND b.time < book_at.at + INTERVAL '26 hours'
    ) AND isempty(covered(of_instrument, 'book_events', tstzrange(book_at.at, book_at.at, '[]'))) THEN
        RETURN QUERY SELECT
            format('nobody was listening at %s; the book is known up to update %s', book_at.at, target), NULL, NULL::bigint,
            NULL::numeric, NULL::numeric, target, NULL::timestamptz, NULL::bigint, NULL::numeric, NULL::numeric;
    ELSE
        RETURN QUERY SELECT * FROM book_at_update(of_instrument, target, book_at.depth);
    END IF;
END;
$$;
COMMENT ON FUNCTION book_at(integer, timestamptz, integer) IS
'The book at a moment of the exchange''s clock, as book_at_update gives it; unknown says why where it cannot be told.';

GRANT SELECT ON book_levels TO cryptopip_reader;
