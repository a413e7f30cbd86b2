-- 0012_retention: the notes of pruning go; what was pruned stays away.
REVOKE SELECT ON incarnation, streams, load_batches, journal_positions, journal_damage, parked_frames,
trades, quotes, book_events, derivatives, liquidations FROM cryptopip_pruner;
DROP FUNCTION prune_chunk(text, tstzrange);
DROP TABLE pruned_chunks, merged_marks;
