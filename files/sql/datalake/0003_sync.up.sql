-- 0003_sync: how far each ingestor's streams have been merged.
-- edition: any   needs: 0002_instruments   locks: only the new relations
CREATE TABLE sources (
    incarnation uuid        PRIMARY KEY,
    ingestor    text        NOT NULL,
    first_seen  timestamptz NOT NULL DEFAULT now(),
    last_seen   timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE sources IS 'Every life of every ingestor database that was ever merged.';

CREATE TABLE watermarks (
    incarnation uuid        NOT NULL REFERENCES sources (incarnation),
    stream      text        NOT NULL,
    batch       bigint      NOT NULL,
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (incarnation, stream)
);
COMMENT ON COLUMN watermarks.batch IS 'The last batch merged; moves in the transaction that merges it.';
GRANT SELECT ON sources, watermarks TO cryptopip_reader;
GRANT SELECT, INSERT, UPDATE ON sources, watermarks TO cryptopip_sync_writer;
