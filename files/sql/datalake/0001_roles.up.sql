-- 0001_roles: who may do what; logins and passwords are given by the timescaledb role, not here.
-- edition: any   role: superuser   locks: none
DO $$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['cryptopip_sync_writer', 'cryptopip_reader'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
        END IF;
    END LOOP;
END
$$;
