-- 0023_book_snapshots: books as they were at full hours, so that any moment's book is an hour of updates away at most;
-- `cryptopip derive` makes them.
-- edition: any   needs: 0022_dropped   locks: digests, coverage and connections, against writes, for a moment
CREATE TABLE book_snapshots (
    time           timestamptz NOT NULL,
    instrument_id  integer     NOT NULL,
    ingestor       text,
    epoch          bigint,
    received_until timestamptz,
    last_id        bigint,
    last_time      timestamptz NOT NULL,
    snapshot_id    bigint,
    since          timestamptz NOT NULL,
    bid_horizon    numeric,
    ask_horizon    numeric,
    bid_prices     numeric[]   NOT NULL,
    bid_amounts    numeric[]   NOT NULL,
    ask_prices     numeric[]   NOT NULL,
    ask_amounts    numeric[]   NOT NULL,
    CHECK ((ingestor IS NULL) = (epoch IS NULL) AND (ingestor IS NULL) = (received_until IS NULL)),
    CHECK (ingestor IS NOT NULL OR last_id IS NOT NULL)
);
SELECT create_hypertable('book_snapshots', by_range('time', INTERVAL '7 days'), create_default_indexes => false);
CREATE UNIQUE INDEX book_snapshots_identity ON book_snapshots (instrument_id, time);
CREATE INDEX book_snapshots_id ON book_snapshots (instrument_id, last_id);
COMMENT ON TABLE book_snapshots IS 'Computed from book_events, never received: the book at the end of each hour that had updates, best prices first.';
COMMENT ON COLUMN book_snapshots.time IS 'The end of the hour (UTC, of book_events.time); no event in it is of this moment or later.';
COMMENT ON COLUMN book_snapshots.ingestor IS 'Where a book belongs to its connection, whose it is; else null, as are epoch and received_until.';
COMMENT ON COLUMN book_snapshots.received_until IS 'What that connection received up to here is in it, and nothing else.';
COMMENT ON COLUMN book_snapshots.last_id IS 'The newest update id in it.';
COMMENT ON COLUMN book_snapshots.last_time IS 'The newest time of an event in it.';
COMMENT ON COLUMN book_snapshots.snapshot_id IS 'Id of the exchange''s snapshot it rests on, whose horizons are its own.';
COMMENT ON COLUMN book_snapshots.since IS 'The hour of the oldest event it rests on: where one of the hours since changes, it counts no more.';

-- An hour stands here from the moment its book events change until it is made. Who makes it holds the row, so that
-- events cannot come in unnoticed meanwhile.
CREATE TABLE book_hours (
    instrument_id integer     NOT NULL,
    hour          timestamptz NOT NULL,
    state         text        NOT NULL DEFAULT 'stale' CHECK (state IN ('stale', 'refused')),
    PRIMARY KEY (instrument_id, hour)
);
CREATE INDEX book_hours_stale ON book_hours (hour) WHERE state = 'stale';
COMMENT ON TABLE book_hours IS 'Hours whose book at the end is yet to be made.';
COMMENT ON COLUMN book_hours.state IS 'stale: book events changed since; refused: there are not as many as their digest says.';

CREATE FUNCTION book_notice() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO book_hours AS h (instrument_id, hour)
    SELECT changed.instrument_id, changed.hour FROM changed
    WHERE changed.channel = 'book_events'
    ORDER BY changed.hour, changed.instrument_id
    ON CONFLICT (instrument_id, hour) DO UPDATE SET state = 'stale';
    RETURN NULL;
END;
$$;
COMMENT ON FUNCTION book_notice() IS 'Notes in book_hours, in the transaction that changes them, the hours whose book events changed.';
CREATE TRIGGER book_inserted AFTER INSERT ON digests
REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION book_notice();
CREATE TRIGGER book_updated AFTER UPDATE ON digests
REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION book_notice();

-- Where a book belongs to its connection, whose is read is a matter of coverage. Hours that are not over are left out:
-- nobody has made them, and they are noticed by what they bring.
CREATE FUNCTION book_notice_hours(of_instruments integer[], since timestamptz[], until timestamptz[]) RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
INSERT INTO book_hours AS h (instrument_id, hour)
SELECT DISTINCT d.instrument_id, d.hour
FROM unnest(of_instruments, since, until) AS c (instrument_id, since, until)
INNER JOIN instruments AS i ON i.id = c.instrument_id
INNER JOIN identities AS y ON y.exchange = i.exchange AND y.channel = 'book_events' AND y.identity = 'epoch'
INNER JOIN digests AS d
    ON d.instrument_id = c.instrument_id AND d.channel = 'book_events'
    AND d.hour > c.since - INTERVAL '1 hour' AND d.hour <= c.until
WHERE d.hour <= clock_timestamp() - INTERVAL '1 hour'
ORDER BY d.hour, d.instrument_id
ON CONFLICT (instrument_id, hour) DO UPDATE SET state = 'stale';
$$;
CREATE FUNCTION book_coverage_notice() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        PERFORM book_notice_hours(
            array_agg(n.instrument_id),
            array_agg(least(
                CASE WHEN n.started_at <> o.started_at THEN least(o.started_at, n.started_at) END,
                CASE WHEN n.ended_at IS DISTINCT FROM o.ended_at THEN least(o.ended_at, n.ended_at) END,
                lower(range_merge((n.revoked - o.revoked) + (o.revoked - n.revoked)))
            )),
            array_agg(timestamptz 'infinity')
        )
        FROM gone AS o INNER JOIN changed AS n ON n.incarnation = o.incarnation AND n.id = o.id
        WHERE n.channel = 'book_events' AND (n.started_at, n.ended_at, n.revoked) IS DISTINCT FROM (o.started_at, o.ended_at, o.revoked)
        HAVING count(*) > 0;
    ELSE
        PERFORM book_notice_hours(
            array_agg(n.instrument_id), array_agg(n.started_at), array_agg(coalesce(n.ended_at, 'infinity'))
        )
        FROM changed AS n WHERE n.channel = 'book_events' HAVING count(*) > 0;
    END IF;
    RETURN NULL;
END;
$$;
CREATE TRIGGER book_covered AFTER INSERT ON coverage
REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION book_coverage_notice();
CREATE TRIGGER book_covered_otherwise AFTER UPDATE ON coverage
REFERENCING OLD TABLE AS gone NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION book_coverage_notice();
CREATE TRIGGER book_uncovered AFTER DELETE ON coverage
REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION book_coverage_notice();

-- An open interval reaches as far as its connection is known to have been alive, which may be told after its events.
CREATE INDEX coverage_open ON coverage (incarnation, stream, epoch) WHERE ended_at IS NULL;
CREATE FUNCTION book_connection_notice() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM book_notice_hours(
        array_agg(c.instrument_id),
        array_agg(CASE WHEN TG_OP = 'UPDATE' THEN greatest(OLD.alive_until, c.started_at) ELSE c.started_at END),
        array_agg(NEW.alive_until)
    )
    FROM coverage AS c
    WHERE
        c.incarnation = NEW.incarnation AND c.stream = NEW.stream AND c.epoch = NEW.epoch
        AND c.channel = 'book_events' AND c.ended_at IS NULL
    HAVING count(*) > 0;
    RETURN NULL;
END;
$$;
CREATE TRIGGER book_alive AFTER INSERT ON connections FOR EACH ROW EXECUTE FUNCTION book_connection_notice();
CREATE TRIGGER book_alive_longer AFTER UPDATE ON connections FOR EACH ROW
WHEN (OLD.alive_until IS DISTINCT FROM NEW.alive_until) EXECUTE FUNCTION book_connection_notice();

INSERT INTO book_hours (instrument_id, hour)
SELECT digests.instrument_id, digests.hour FROM digests
WHERE
    digests.channel = 'book_events'
    AND NOT EXISTS (
        SELECT FROM dropped_chunks AS c WHERE c.channel = 'book_events' AND c.during @> digests.hour
    );

CREATE FUNCTION are_books_settled(of_instrument integer, since timestamptz, until timestamptz) RETURNS boolean
STABLE LANGUAGE sql SET search_path FROM CURRENT AS $$
SELECT NOT EXISTS (
    SELECT FROM book_hours AS h
    WHERE h.instrument_id = of_instrument AND h.hour >= are_books_settled.since AND h.hour < are_books_settled.until
);
$$;
COMMENT ON FUNCTION are_books_settled(integer, timestamptz, timestamptz) IS
'That no hour of an instrument has changed from then to then: what was computed from these hours holds.';

-- As book_at_update of 0012, but whole, and resting on the newest of the exchange's snapshots and ours. Ours is what
-- the same arithmetic gave at its id, with the horizons it rests on: what follows from either is the same. A side that
-- was empty in a snapshot is known to its end: it has no horizon.
CREATE FUNCTION chain_state(of_instrument integer, update_id bigint, made_until timestamptz)
RETURNS TABLE (
    unknown text, side text, price numeric, amount numeric, last_id bigint, "time" timestamptz,
    snapshot_id bigint, since timestamptz, bid_horizon numeric, ask_horizon numeric
) STABLE LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
#variable_conflict use_column
DECLARE
    made book_snapshots;
    base book_events;
    chain int8multirange;
    reached bigint;
    hole int8range;
    of_time timestamptz;
BEGIN
    SELECT s.* INTO made FROM book_snapshots AS s
    WHERE
        s.instrument_id = of_instrument AND s.last_id <= chain_state.update_id AND s.ingestor IS NULL
        AND s.time <= chain_state.made_until AND are_books_settled(s.instrument_id, s.since, s.time)
    ORDER BY s.last_id DESC, s.time DESC LIMIT 1;
    SELECT b.* INTO base FROM book_events AS b
    WHERE
        b.instrument_id = of_instrument AND b.is_snapshot AND b.last_id <= chain_state.update_id
        AND b.last_id >= coalesce(made.last_id, -1) AND b.time > coalesce(made.last_time - INTERVAL '1 day', '-infinity')
    ORDER BY b.last_id DESC, b.received_at LIMIT 1;
    IF FOUND THEN
        made.snapshot_id := base.last_id;
        made.since := time_bucket('1 hour', base.time - INTERVAL '10 minutes');
        made.bid_horizon := (SELECT min(p) FROM unnest(base.bid_prices) AS p);
        made.ask_horizon := (SELECT max(p) FROM unnest(base.ask_prices) AS p);
        made.last_time := NULL;
    ELSIF made.last_id IS NULL THEN
        RETURN QUERY SELECT
            format('no snapshot at or before update %s', chain_state.update_id), NULL, NULL::numeric, NULL::numeric,
            NULL::bigint, NULL::timestamptz, NULL::bigint, NULL::timestamptz, NULL::numeric, NULL::numeric;
        RETURN;
    ELSE
        base.last_id := made.last_id;
        base.time := made.last_time;
        base.bid_prices := made.bid_prices;
        base.bid_amounts := made.bid_amounts;
        base.ask_prices := made.ask_prices;
        base.ask_amounts := made.ask_amounts;
    END IF;
    SELECT
        coalesce(
            range_agg(int8range(coalesce(b.first_id, b.previous_id + 1), b.last_id, '[]'))
            FILTER (WHERE coalesce(b.first_id, b.previous_id + 1) <= b.last_id), '{}'
        ),
        coalesce(max(b.last_id), base.last_id),
        coalesce(greatest(max(b.time), made.last_time), base.time)
    INTO chain, reached, of_time
    FROM book_events AS b
    WHERE
        b.instrument_id = of_instrument AND NOT b.is_snapshot
        AND b.last_id > base.last_id AND b.last_id <= chain_state.update_id AND b.time > base.time - INTERVAL '1 day';
    SELECT r INTO hole
    FROM unnest(int8multirange(int8range(base.last_id, chain_state.update_id, '(]')) - chain) AS r
    ORDER BY r LIMIT 1;
    IF hole IS NOT NULL THEN
        RETURN QUERY SELECT
            format(
                'updates %s to %s after snapshot %s are not there or end behind %s',
                lower(hole), upper(hole) - 1, made.snapshot_id, chain_state.update_id
            ), NULL, NULL::numeric, NULL::numeric, reached, of_time, made.snapshot_id, made.since,
            NULL::numeric, NULL::numeric;
        RETURN;
    END IF;
    RETURN QUERY
    WITH events AS (
        SELECT b.last_id, b.bid_prices, b.bid_amounts, b.ask_prices, b.ask_amounts FROM book_events AS b
        WHERE
            b.instrument_id = of_instrument AND NOT b.is_snapshot
            AND b.last_id > base.last_id AND b.last_id <= chain_state.update_id AND b.time > base.time - INTERVAL '1 day'
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
    newest AS (
        SELECT DISTINCT ON (c.side, c.price) c.side, c.price, c.amount
        FROM changes AS c
        ORDER BY c.side, c.price, c.last_id DESC
    )
    SELECT
        NULL, n.side, n.price, n.amount, reached, of_time, made.snapshot_id, made.since, made.bid_horizon, made.ask_horizon
    FROM (VALUES (true)) AS one (is_known)
    LEFT JOIN newest AS n
        ON n.amount <> 0
        AND coalesce(CASE n.side WHEN 'bid' THEN n.price >= made.bid_horizon ELSE n.price <= made.ask_horizon END, true);
END;
$$;
COMMENT ON FUNCTION chain_state(integer, bigint, timestamptz) IS
'All levels right after an update, in no order, one row with a null side where there is none; one row with a reason in '
'column unknown where it cannot be told. Rests on no book_snapshots of later than made_until.';

CREATE OR REPLACE FUNCTION book_at_update(of_instrument integer, update_id bigint, depth integer DEFAULT 20)
RETURNS TABLE (
    unknown text, side text, level bigint, price numeric, amount numeric,
    last_id bigint, "time" timestamptz, snapshot_id bigint, bid_horizon numeric, ask_horizon numeric
) STABLE LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH ranked AS (
        SELECT
            s.*,
            row_number() OVER (PARTITION BY s.side ORDER BY CASE s.side WHEN 'bid' THEN -s.price ELSE s.price END) AS level
        FROM chain_state(of_instrument, book_at_update.update_id, 'infinity') AS s
        WHERE s.side IS NOT NULL OR s.unknown IS NOT NULL
    )
    SELECT
        r.unknown, r.side, CASE WHEN r.unknown IS NULL THEN r.level END, r.price, r.amount,
        r.last_id, r.time, r.snapshot_id, r.bid_horizon, r.ask_horizon
    FROM ranked AS r
    WHERE r.level <= book_at_update.depth OR r.unknown IS NOT NULL
    ORDER BY r.side DESC, r.level;
END;
$$;

-- What epoch_book of 0014 knows, whole: levels too that a venue which keeps a few may have dropped from sight.
CREATE FUNCTION epoch_state(
    of_instrument integer, of_ingestor text, of_epoch bigint, time_until timestamptz, received_until timestamptz
)
RETURNS TABLE (
    side text, price numeric, amount numeric, last_id bigint, "time" timestamptz, snapshot_id bigint, since timestamptz
) STABLE LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
#variable_conflict use_column
DECLARE
    made book_snapshots;
    base book_events;
    is_made boolean := false;
BEGIN
    SELECT s.* INTO made FROM book_snapshots AS s
    WHERE
        s.instrument_id = of_instrument AND s.ingestor = of_ingestor AND s.epoch = of_epoch
        AND s.time <= least(epoch_state.time_until, epoch_state.received_until) AND are_books_settled(s.instrument_id, s.since, s.time)
    ORDER BY s.time DESC LIMIT 1;
    SELECT b.* INTO base FROM book_events AS b
    WHERE
        b.instrument_id = of_instrument AND b.is_snapshot AND b.ingestor = of_ingestor AND b.epoch = of_epoch
        AND b.time <= coalesce(epoch_state.time_until, epoch_state.received_until + INTERVAL '1 day')
        AND b.time > coalesce(
            made.last_time - INTERVAL '1 minute',
            coalesce(epoch_state.time_until, epoch_state.received_until) - INTERVAL '26 hours'
        )
        AND b.received_at <= coalesce(epoch_state.received_until, 'infinity')
        AND b.received_at > coalesce(made.received_until, '-infinity')
    ORDER BY b.received_at DESC, b.ordinal DESC LIMIT 1;
    IF FOUND THEN
        made.snapshot_id := base.last_id;
        made.since := time_bucket('1 hour', base.time - INTERVAL '1 minute');
    ELSIF made.time IS NULL THEN
        RETURN;
    ELSE
        is_made := true;
        base.is_snapshot := true;
        base.last_id := made.last_id;
        base.time := made.last_time;
        base.received_at := made.received_until;
        base.ordinal := 1;
        base.bid_prices := made.bid_prices;
        base.bid_amounts := made.bid_amounts;
        base.ask_prices := made.ask_prices;
        base.ask_amounts := made.ask_amounts;
    END IF;
    RETURN QUERY
    WITH events AS (
        SELECT b.* FROM book_events AS b
        WHERE
            b.instrument_id = of_instrument AND NOT b.is_snapshot AND b.ingestor = of_ingestor AND b.epoch = of_epoch
            AND b.time <= coalesce(epoch_state.time_until, epoch_state.received_until + INTERVAL '1 day')
            AND b.time > base.time - INTERVAL '1 minute'
            AND b.received_at <= coalesce(epoch_state.received_until, 'infinity')
            AND CASE
                WHEN is_made
                    THEN b.received_at > base.received_at AND coalesce(b.last_id > made.snapshot_id, true)
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
    reached AS (SELECT max(e.last_id) AS last_id, max(e.time) AS at FROM events AS e)
    SELECT n.side, n.price, n.amount, r.last_id, r.at, made.snapshot_id, made.since
    FROM reached AS r LEFT JOIN newest AS n ON n.amount <> 0;
END;
$$;
COMMENT ON FUNCTION epoch_state(integer, text, bigint, timestamptz, timestamptz) IS
'All levels as one connection knew them, in no order, up to an exchange''s time and a receive time (null: not so bounded); '
'no row where it is not known, one with a null side where the book was empty.';

CREATE OR REPLACE FUNCTION epoch_book(
    of_instrument integer, of_ingestor text, of_epoch bigint, time_until timestamptz, received_until timestamptz
)
RETURNS TABLE (
    side text, level bigint, price numeric, amount numeric, last_id bigint, "time" timestamptz, snapshot_id bigint,
    bid_horizon numeric, ask_horizon numeric
) STABLE LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
#variable_conflict use_column
DECLARE
    kept integer;
BEGIN
    SELECT d.depth INTO kept FROM instruments AS i INNER JOIN identities AS d ON d.exchange = i.exchange
    WHERE i.id = of_instrument AND d.channel = 'book_events';
    RETURN QUERY
    WITH state AS MATERIALIZED (
        SELECT s.* FROM epoch_state(of_instrument, of_ingestor, of_epoch, epoch_book.time_until, epoch_book.received_until) AS s
    ),
    ranked AS (
        SELECT
            s.side, s.price, s.amount,
            row_number() OVER (PARTITION BY s.side ORDER BY CASE s.side WHEN 'bid' THEN -s.price ELSE s.price END) AS level
        FROM state AS s
        WHERE s.side IS NOT NULL
    ),
    -- A venue that keeps so many levels up to date says nothing of those that fall out, and tells them again if they
    -- come back: what is beyond is not known. Where it sends the whole book there is no beyond.
    horizon AS (
        SELECT
            min(r.price) FILTER (WHERE r.side = 'bid' AND r.level = kept) AS bid,
            max(r.price) FILTER (WHERE r.side = 'ask' AND r.level = kept) AS ask
        FROM ranked AS r
    ),
    reached AS (SELECT s.last_id, s.time, s.snapshot_id FROM state AS s LIMIT 1)
    SELECT r.side, r.level, r.price, r.amount, reached.last_id, reached.time, reached.snapshot_id, h.bid, h.ask
    FROM reached CROSS JOIN horizon AS h
    LEFT JOIN ranked AS r ON r.level <= coalesce(kept, r.level)
    ORDER BY r.side DESC, r.level;
END;
$$;

GRANT SELECT ON book_snapshots, book_hours TO cryptopip_reader;
GRANT SELECT, INSERT, UPDATE, DELETE ON book_snapshots, book_hours TO cryptopip_sync_writer;
