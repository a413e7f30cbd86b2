-- 0007_coverage_state: what the loader must remember between batches to go on deriving coverage.
-- edition: any   needs: 0003_loading   locks: only the new relation
CREATE TABLE coverage_states (
    stream_id integer NOT NULL REFERENCES streams (id),
    epoch     bigint  NOT NULL,
    state     bytea   NOT NULL,
    PRIMARY KEY (stream_id, epoch)
);
COMMENT ON TABLE coverage_states IS 'Last ids and open intervals of the epochs being loaded, in the loader''s own form; gone when the epoch is.';
GRANT SELECT, INSERT, UPDATE, DELETE ON coverage_states TO cryptopip_loader;
