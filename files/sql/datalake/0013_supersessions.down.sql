-- 0013_supersessions: which rows of superseded batches still wait to be taken out is forgotten; they stay.
REVOKE DELETE ON coverage, sync_conflicts FROM cryptopip_sync_writer;
DROP TABLE supersessions;
