-- 0013_supersessions: connections whose journal an ingestor loaded again, and whether what the old batches alone had
-- contributed is out of the history.
-- edition: any   needs: 0007_sync_conflicts   locks: only the new relation
CREATE TABLE supersessions (
    incarnation uuid        NOT NULL REFERENCES sources (incarnation),
    stream      text        NOT NULL,
    epoch       bigint      NOT NULL,
    reload_to   bigint      NOT NULL,
    seen_at     timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    removed     bigint      NOT NULL DEFAULT 0,
    waits_for   text[]      NOT NULL DEFAULT '{}',
    PRIMARY KEY (incarnation, stream, epoch)
);
COMMENT ON TABLE supersessions IS 'Epochs loaded again; the new rows are merged in any case.';
COMMENT ON COLUMN supersessions.reload_to IS 'The load batch on the ingestor that ended the reload.';
COMMENT ON COLUMN supersessions.finished_at IS 'When the history was rid of the rows of the old batches; null while they are still in it.';
COMMENT ON COLUMN supersessions.removed IS 'Rows of the old batches taken out of the history.';
COMMENT ON COLUMN supersessions.waits_for IS 'Who may have those rows as well and could not be asked: until then they stay.';
GRANT SELECT ON supersessions TO cryptopip_reader;
GRANT SELECT, INSERT, UPDATE ON supersessions TO cryptopip_sync_writer;
GRANT DELETE ON coverage, sync_conflicts TO cryptopip_sync_writer;
