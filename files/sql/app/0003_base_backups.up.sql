-- 0003_base_backups: what came of each base backup taken and each one read through.
-- edition: any   locks: only the new relation
CREATE TABLE base_backups (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ended_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    duration   interval    NOT NULL CHECK (duration >= INTERVAL '0'),
    engine     text        NOT NULL,
    operation  text        NOT NULL CHECK (operation IN ('take', 'verify')),
    backup     text,
    size_bytes bigint,
    result     text        NOT NULL CHECK (result IN ('good', 'bad')),
    problems   text[]      NOT NULL CHECK ((result = 'good') = (cardinality(problems) = 0))
);
COMMENT ON TABLE base_backups IS 'Every base backup that was taken or read through, or failed to be.';
COMMENT ON COLUMN base_backups.backup IS 'Its name; null where taking it failed before it had one.';
COMMENT ON COLUMN base_backups.size_bytes IS 'What it takes in the store; null where that is not known.';
