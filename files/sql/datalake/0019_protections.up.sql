-- 0019_protections: up to when the history is also in a verified backup or archive, so that ingestors may prune.
-- edition: any   needs: 0001_roles   locks: only the new relations
CREATE TABLE protections (
    source          text        NOT NULL CHECK (source IN ('base_backup', 'logical_backup', 'archive')),
    name            text        NOT NULL CHECK (name <> ''),
    protected_until timestamptz NOT NULL,
    verified_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source, name)
);
COMMENT ON TABLE protections IS 'One row for each backup or archived month that was read back whole and still exists.';
COMMENT ON COLUMN protections.name IS 'The base backup''s name, the dump''s folder, the archived month.';
COMMENT ON COLUMN protections.protected_until IS 'What was received before is in it, as far as it had been merged when it was made.';

CREATE FUNCTION protected_until() RETURNS timestamptz STABLE LANGUAGE sql
RETURN (SELECT max(protected_until) FROM protections);
COMMENT ON FUNCTION protected_until() IS 'Ingestors prune only what was received before; null (nothing verified): nothing.';

GRANT SELECT ON protections TO cryptopip_reader;
GRANT SELECT, INSERT, UPDATE, DELETE ON protections TO cryptopip_sync_writer;
