-- 0010_supersede: rows of superseded batches would count again; refused while there are any.
DO $$
BEGIN
    IF EXISTS (SELECT FROM load_batches WHERE superseded_by IS NOT NULL) THEN
        RAISE EXCEPTION 'load_batches has superseded batches, whose rows would be merged again: they must be deleted with their rows first';
    END IF;
END
$$;
REVOKE DELETE ON coverage, rejected_events FROM cryptopip_loader;
DROP INDEX load_batches_superseded;
ALTER TABLE load_batches
DROP COLUMN superseded_by,
DROP COLUMN reload_to;
