-- 0010_supersede: a connection's journal loaded again, by a newer decoder, takes the place of what was loaded of it.
-- edition: any   needs: 0008_channels   locks: load_batches, exclusively, for a moment
ALTER TABLE load_batches
ADD COLUMN superseded_by bigint,
ADD COLUMN reload_to bigint;
COMMENT ON COLUMN load_batches.superseded_by IS 'reload_to of the batches that took this one''s place; its rows stay, for sync to see what to take back.';
COMMENT ON COLUMN load_batches.reload_to IS 'Of a batch that was loaded again: the last batch of the same transaction, which holds one epoch as a whole.';
CREATE INDEX load_batches_superseded ON load_batches (stream_id, superseded_by) WHERE superseded_by IS NOT NULL;
GRANT UPDATE (superseded_by, reload_to) ON load_batches TO cryptopip_loader;
GRANT DELETE ON coverage, rejected_events TO cryptopip_loader;
