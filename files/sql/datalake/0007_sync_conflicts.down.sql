-- 0007_sync_conflicts: drops the record of contradicting copies; the history itself is not touched.
DROP TABLE sync_conflicts;
