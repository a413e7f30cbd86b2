-- 0003_loading: the journals keep what was loaded; a loader starts over from them.
DROP TABLE rejected_events, parked_frames, journal_damage, journal_positions, load_batches, streams, incarnation;
