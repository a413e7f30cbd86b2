-- 0014_leads: identities are written anew by the next sync after going up again.
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
DROP FUNCTION book_events_led(integer, tstzrange);
DROP FUNCTION book_at_of_lead(integer, timestamptz, integer);
DROP FUNCTION epoch_book(integer, text, bigint, timestamptz, timestamptz);
DROP FUNCTION derivatives_led(integer, tstzrange);
DROP FUNCTION quotes_led(integer, tstzrange);
DROP FUNCTION leads(integer, text, tstzrange);
DROP TABLE identities;
