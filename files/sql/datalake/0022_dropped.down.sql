-- 0022_dropped, taken back; refused where something was dropped: an archive made then would lack it.
DO $$
BEGIN
    IF EXISTS (SELECT FROM dropped_chunks) THEN
        RAISE EXCEPTION 'chunks of the history were dropped, and without this table archives would be written again without them: import them from the archive first';
    END IF;
END
$$;
DROP FUNCTION drop_chunk(text, tstzrange);
DROP TABLE late_rows, dropped_chunks;
