-- 0013_sync_pruned: a sync of this version no longer reads this database.
REVOKE SELECT ON pruned_chunks FROM cryptopip_sync_reader;
