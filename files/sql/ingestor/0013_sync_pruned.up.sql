-- 0013_sync_pruned: sync knows rows that were pruned from rows that somebody removed.
-- edition: any   needs: 0012_retention   locks: none
GRANT SELECT ON pruned_chunks TO cryptopip_sync_reader;
