-- 0014_leads: events that belong to their epoch alone (the wire has no ids): one connection leads at a time, never two mixed.
-- edition: any   needs: 0012_book_holes   locks: only the new relations and the function book_at
CREATE TABLE identities (
    exchange text    NOT NULL,
    channel  text    NOT NULL CHECK (channel IN ('trades', 'quotes', 'book_events', 'derivatives', 'liquidations')),
    identity text    NOT NULL CHECK (identity IN ('id', 'tuple', 'chain', 'epoch')),
    depth    integer CHECK (depth > 0),
    PRIMARY KEY (exchange, channel)
);
COMMENT ON TABLE identities IS 'What makes two events of a channel the same; written by sync from the exchanges'' decoders.';
COMMENT ON COLUMN identities.identity IS 'epoch: events of two connections are never mixed, read them through leads() and the functions *_led.';
COMMENT ON COLUMN identities.depth IS 'Of books the levels a side that the exchange keeps up to date, null for all.';
GRANT SELECT ON identities TO cryptopip_reader;
GRANT SELECT, INSERT, UPDATE ON identities TO cryptopip_sync_writer;
COMMENT ON COLUMN book_events.ordinal IS 'Where events of two connections are never mixed, the place among those of one receive time. 1 elsewhere.';

-- Of the intervals that cover a moment the one that started first leads (then by ingestor and epoch), so what each of
-- them leads is what all before it leave: the same whatever the order in which coverage came, and no switch back.
CREATE FUNCTION leads(of_instrument integer, of_channel text, during tstzrange)
RETURNS TABLE (stretch tstzrange, ingestor text, epoch bigint)
STABLE PARALLEL SAFE LANGUAGE sql BEGIN ATOMIC
WITH heard AS (
    SELECT i.started_at, i.ingestor, i.epoch, i.interval AS span
    FROM coverage_intervals AS i
    WHERE
        i.instrument_id = of_instrument
        AND i.channel = of_channel
        AND i.started_at <= coalesce(upper(during), 'infinity')
        AND i.interval && during
),
led AS (
    SELECT
        heard.ingestor,
        heard.epoch,
        tstzmultirange(heard.span) - coalesce(
            range_agg(heard.span) OVER (
                ORDER BY heard.started_at, heard.ingestor, heard.epoch
                ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            ),
            '{}'::tstzmultirange
        ) AS stretches
    FROM heard
)
SELECT
    s.stretch * during AS stretch,
    led.ingestor,
    led.epoch
FROM led CROSS JOIN LATERAL unnest(led.stretches) AS s (stretch)
WHERE s.stretch && during
ORDER BY lower(s.stretch * during);
END;
COMMENT ON FUNCTION leads(integer, text, tstzrange) IS
'Which connection leads when (receive time), within the range given: the covering one that started first.';

CREATE FUNCTION quotes_led(of_instrument integer, during tstzrange) RETURNS SETOF quotes
STABLE LANGUAGE sql SET search_path FROM CURRENT AS $$
SELECT q.* FROM leads(of_instrument, 'quotes', during) AS l
INNER JOIN quotes AS q ON q.ingestor = l.ingestor AND q.epoch = l.epoch AND q.received_at <@ l.stretch
WHERE
    q.instrument_id = of_instrument
    AND q.time BETWEEN lower(during) - INTERVAL '1 day' AND upper(during) + INTERVAL '1 day'
ORDER BY q.received_at, q.ordinal;
$$;
CREATE FUNCTION derivatives_led(of_instrument integer, during tstzrange) RETURNS SETOF derivatives
STABLE LANGUAGE sql SET search_path FROM CURRENT AS $$
SELECT d.* FROM leads(of_instrument, 'derivatives', during) AS l
INNER JOIN derivatives AS d ON d.ingestor = l.ingestor AND d.epoch = l.epoch AND d.received_at <@ l.stretch
WHERE
    d.instrument_id = of_instrument
    AND d.time BETWEEN lower(during) - INTERVAL '1 day' AND upper(during) + INTERVAL '1 day'
ORDER BY d.received_at, d.ordinal;
$$;
COMMENT ON FUNCTION quotes_led(integer, tstzrange) IS
'Quotes of an exchange whose quotes belong to their connection, received in the range (give it both ends), of the leading one.';
COMMENT ON FUNCTION derivatives_led(integer, tstzrange) IS 'As quotes_led, of derivatives.';

-- Amounts are absolute, so the book of a connection is, per price, its newest event on top of its newest snapshot. An
-- update with an id counts if that is behind the snapshot's, whichever came first (REST); one without, if it came after.
CREATE FUNCTION epoch_book(
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
COMMENT ON FUNCTION epoch_book(integer, text, bigint, timestamptz, timestamptz) IS
'The book as one connection knew it, up to an exchange''s time or a receive time (one is null); no row without a snapshot '
'in the 26 hours before, one row with a null side where the book was empty.';

CREATE FUNCTION book_at_of_lead(of_instrument integer, at timestamptz, depth integer)
RETURNS TABLE (
    unknown text, side text, level bigint, price numeric, amount numeric,
    last_id bigint, "time" timestamptz, snapshot_id bigint, bid_horizon numeric, ask_horizon numeric
) STABLE LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
#variable_conflict use_column
DECLARE
    chosen record;
BEGIN
    SELECT l.ingestor, l.epoch INTO chosen FROM leads(of_instrument, 'book_events', tstzrange(at, at, '[]')) AS l LIMIT 1;
    IF NOT FOUND THEN
        RETURN QUERY SELECT
            format('nobody was listening at %s', at), NULL, NULL::bigint, NULL::numeric,
            NULL::numeric, NULL::bigint, NULL::timestamptz, NULL::bigint, NULL::numeric, NULL::numeric;
        RETURN;
    END IF;
    RETURN QUERY
    SELECT NULL::text, e.side, e.level, e.price, e.amount, e.last_id, e.time, e.snapshot_id, e.bid_horizon, e.ask_horizon
    FROM epoch_book(of_instrument, chosen.ingestor, chosen.epoch, at, NULL) AS e
    WHERE e.level <= book_at_of_lead.depth;
    IF NOT FOUND AND NOT EXISTS (SELECT FROM epoch_book(of_instrument, chosen.ingestor, chosen.epoch, at, NULL)) THEN
        RETURN QUERY SELECT
            format('the leading connection (%s, epoch %s) has no snapshot at or before %s', chosen.ingestor, chosen.epoch, at),
            NULL, NULL::bigint, NULL::numeric,
            NULL::numeric, NULL::bigint, NULL::timestamptz, NULL::bigint, NULL::numeric, NULL::numeric;
    END IF;
END;
$$;
COMMENT ON FUNCTION book_at_of_lead(integer, timestamptz, integer) IS 'book_at where a book belongs to its connection: that of the leading one.';

-- Written at the moment of asking, a derived snapshot is right whatever arrives later, and no digest ever holds it.
CREATE FUNCTION book_events_led(of_instrument integer, during tstzrange)
RETURNS TABLE (
    is_derived boolean, received_at timestamptz, "time" timestamptz, ingestor text, epoch bigint, ordinal smallint,
    is_snapshot boolean, first_id bigint, last_id bigint,
    bid_prices numeric [], bid_amounts numeric [], ask_prices numeric [], ask_amounts numeric []
) STABLE LANGUAGE sql SET search_path FROM CURRENT AS $$
WITH stretches AS MATERIALIZED (
    SELECT
        l.stretch,
        l.ingestor,
        l.epoch,
        CASE WHEN lower_inc(l.stretch) THEN lower(l.stretch) - INTERVAL '1 microsecond' ELSE lower(l.stretch) END AS before
    FROM leads(of_instrument, 'book_events', during) AS l
),
derived AS (
    SELECT
        s.ingestor,
        s.epoch,
        lower(s.stretch) AS at,
        max(b.last_id) AS last_id,
        max(b.time) AS of_time,
        coalesce(array_agg(b.price ORDER BY b.level) FILTER (WHERE b.side = 'bid'), '{}') AS bid_prices,
        coalesce(array_agg(b.amount ORDER BY b.level) FILTER (WHERE b.side = 'bid'), '{}') AS bid_amounts,
        coalesce(array_agg(b.price ORDER BY b.level) FILTER (WHERE b.side = 'ask'), '{}') AS ask_prices,
        coalesce(array_agg(b.amount ORDER BY b.level) FILTER (WHERE b.side = 'ask'), '{}') AS ask_amounts
    FROM stretches AS s
    CROSS JOIN LATERAL epoch_book(of_instrument, s.ingestor, s.epoch, NULL, s.before) AS b
    GROUP BY s.ingestor, s.epoch, lower(s.stretch)
)
SELECT
    true,
    d.at,
    d.of_time,
    d.ingestor,
    d.epoch,
    0::smallint,
    true,
    NULL::bigint,
    d.last_id,
    d.bid_prices,
    d.bid_amounts,
    d.ask_prices,
    d.ask_amounts
FROM derived AS d
UNION ALL
SELECT
    false,
    b.received_at,
    b.time,
    b.ingestor,
    b.epoch,
    b.ordinal,
    b.is_snapshot,
    b.first_id,
    b.last_id,
    b.bid_prices,
    b.bid_amounts,
    b.ask_prices,
    b.ask_amounts
FROM stretches AS s
INNER JOIN book_events AS b ON b.ingestor = s.ingestor AND b.epoch = s.epoch AND b.received_at <@ s.stretch
WHERE
    b.instrument_id = of_instrument
    AND b.time BETWEEN lower(during) - INTERVAL '1 day' AND upper(during) + INTERVAL '1 day'
ORDER BY 2, 6;
$$;
COMMENT ON FUNCTION book_events_led(integer, tstzrange) IS
'Book events received in the range (give it both ends) of the leading connection; where another takes the lead, its book at '
'that moment comes first, as a snapshot that is_derived.';

-- As in 0008, but where a book belongs to its connection that of the leading one is asked.
CREATE OR REPLACE FUNCTION book_at(of_instrument integer, at timestamptz, depth integer DEFAULT 20)
RETURNS TABLE (
    unknown text, side text, level bigint, price numeric, amount numeric,
    last_id bigint, "time" timestamptz, snapshot_id bigint, bid_horizon numeric, ask_horizon numeric
) STABLE LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
#variable_conflict use_column
DECLARE
    target bigint;
    back interval;
BEGIN
    IF EXISTS (
        SELECT FROM instruments AS i INNER JOIN identities AS d ON d.exchange = i.exchange
        WHERE i.id = of_instrument AND d.channel = 'book_events' AND d.identity = 'epoch'
    ) THEN
        RETURN QUERY SELECT * FROM book_at_of_lead(of_instrument, book_at.at, book_at.depth);
        RETURN;
    END IF;
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
