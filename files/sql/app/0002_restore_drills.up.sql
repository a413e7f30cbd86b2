-- 0002_restore_drills: when a backup was last restored and checked, and what came of it.
-- edition: any   locks: only the new relation
CREATE TABLE restore_drills (
    id                bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    started_at        timestamptz NOT NULL,
    duration          interval    NOT NULL CHECK (duration >= INTERVAL '0'),
    engine            text        NOT NULL,
    backup            text        NOT NULL,
    backup_age        interval    NOT NULL,
    recovered_to      timestamptz,
    scope             text        NOT NULL CHECK (scope IN ('full', 'sample')),
    result            text        NOT NULL CHECK (result IN ('good', 'bad')),
    problems          text[]      NOT NULL CHECK ((result = 'good') = (cardinality(problems) = 0)),
    compared_hours    bigint      NOT NULL DEFAULT 0,
    restored_bytes    bigint      NOT NULL DEFAULT 0
);
COMMENT ON TABLE restore_drills IS 'Every restore drill that got as far as a backup to restore.';
COMMENT ON COLUMN restore_drills.backup_age IS 'From the end of the backup to the drill''s start.';
COMMENT ON COLUMN restore_drills.recovered_to IS 'Commit time of the last transaction replayed; null where recovery did not get there.';
COMMENT ON COLUMN restore_drills.compared_hours IS 'Digests (instrument, channel, hour) of closed days that were compared with the live datalake.';
