-- 0011_pruner: who prunes an ingestor; its login and password are given by the timescaledb role, not here.
-- edition: any   role: superuser   locks: none
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'cryptopip_pruner') THEN
        CREATE ROLE cryptopip_pruner NOLOGIN;
    END IF;
END
$$;
