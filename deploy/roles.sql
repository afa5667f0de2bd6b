-- Four roles with no more rights than each needs, and the schema of the ledger. Once, as a superuser (or a role that may
-- create roles), connected to a database that the ledger has to itself:
--   psql -d night -v ON_ERROR_STOP=1 -f deploy/roles.sql
-- Then give each a way to log in (\password batchrunner_worker, or a line for certificates in pg_hba.conf). Then, as
-- batchrunner_owner: `batchrunner ledger migrate`, and rights.sql.
--   batchrunner_owner     makes and upgrades the ledger; nobody works under it
--   batchrunner_runner    run, resume, retry, cancel, ...
--   batchrunner_worker    worker
--   batchrunner_onlooker  status, jobs, show, report, export, serve: reads, and nothing else
DO $$
DECLARE name TEXT;
BEGIN
  FOREACH name IN ARRAY ARRAY['batchrunner_owner', 'batchrunner_runner', 'batchrunner_worker', 'batchrunner_onlooker']
  LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
      EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS', name);
    END IF;
  END LOOP;
  EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
  EXECUTE format('GRANT CONNECT ON DATABASE %I TO batchrunner_owner, batchrunner_runner, batchrunner_worker, '
    'batchrunner_onlooker', current_database());
  EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO batchrunner_owner, batchrunner_runner, batchrunner_worker',
    current_database());
END $$;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
CREATE SCHEMA IF NOT EXISTS batchrunner AUTHORIZATION batchrunner_owner;
-- Nobody's session lies about with a lock in its hands.
ALTER ROLE batchrunner_onlooker SET idle_in_transaction_session_timeout = '1min';
ALTER ROLE batchrunner_onlooker SET default_transaction_read_only = on;
