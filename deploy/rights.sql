-- What each role may do with the ledger's tables. As batchrunner_owner, after every `batchrunner ledger migrate`:
--   psql -U batchrunner_owner -d night -v ON_ERROR_STOP=1 -f deploy/rights.sql
-- A ledger that no worker uses (made without Procrastinate) has no table procrastinate_jobs: leave the last grant out.
BEGIN;
REVOKE ALL ON ALL TABLES IN SCHEMA batchrunner FROM batchrunner_runner, batchrunner_worker, batchrunner_onlooker;
GRANT USAGE ON SCHEMA batchrunner TO batchrunner_runner, batchrunner_worker, batchrunner_onlooker;
GRANT SELECT ON ALL TABLES IN SCHEMA batchrunner TO batchrunner_onlooker;
GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA batchrunner TO batchrunner_runner, batchrunner_worker;
REVOKE INSERT, UPDATE ON batchrunner.legal, batchrunner.ledger FROM batchrunner_runner, batchrunner_worker;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA batchrunner TO batchrunner_runner, batchrunner_worker;
GRANT DELETE ON batchrunner.latency TO batchrunner_runner;
GRANT DELETE ON batchrunner.procrastinate_jobs, batchrunner.procrastinate_workers, batchrunner.procrastinate_events,
  batchrunner.procrastinate_periodic_defers TO batchrunner_worker;
COMMIT;
