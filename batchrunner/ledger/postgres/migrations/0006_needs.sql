-- As ledger/migrations/0006: jobs whose request names other jobs' outputs.
CREATE TABLE need (
  job_id      BIGINT NOT NULL REFERENCES job (id),
  parent      TEXT COLLATE "C" NOT NULL,
  fingerprint TEXT COLLATE "C" NOT NULL,
  problem     TEXT COLLATE "C" NOT NULL DEFAULT '',
  PRIMARY KEY (job_id, parent, fingerprint)
);

CREATE INDEX need_problem ON need (job_id) WHERE problem <> '';

ALTER TABLE attempt ADD COLUMN request TEXT COLLATE "C";

CREATE TRIGGER need_is_final BEFORE UPDATE OF job_id, parent, fingerprint ON need
FOR EACH ROW EXECUTE FUNCTION refuse('what a job needs never changes');

CREATE TRIGGER need_is_kept BEFORE DELETE ON need
FOR EACH ROW EXECUTE FUNCTION refuse('what a job needs never changes');

-- Nothing is sent that waits for another job, and no reference is sent unresolved.
CREATE FUNCTION has_what_it_needs() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE refers BOOLEAN;
BEGIN
  SELECT strpos(request, '{"$output":{"') > 0 INTO refers FROM job WHERE id = NEW.job_id;
  IF (NEW.request IS NULL) = refers
    OR (NEW.request IS NULL) = EXISTS (SELECT 1 FROM need WHERE job_id = NEW.job_id)
    OR strpos(NEW.request, '{"$output":{"') > 0
    OR EXISTS (
      SELECT 1 FROM need JOIN job ON job.id = need.job_id
      LEFT JOIN job parent ON parent.batch_id = job.batch_id AND parent.key = need.parent
        AND parent.fingerprint = need.fingerprint
      WHERE need.job_id = NEW.job_id AND parent.state IS DISTINCT FROM 'succeeded')
  THEN
    RAISE EXCEPTION USING ERRCODE = 'integrity_constraint_violation',
      MESSAGE = 'a job is sent when what it needs has succeeded, with URLs in its request';
  END IF;
  RETURN NEW;
END $$;

CREATE TRIGGER attempt_has_what_it_needs BEFORE INSERT ON attempt FOR EACH ROW EXECUTE FUNCTION has_what_it_needs();
