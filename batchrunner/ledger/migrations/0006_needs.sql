-- Jobs whose request names other jobs' outputs (`core/chain.py`). A parent is meant by key and fingerprint: a child may
-- be recorded before it, and another revision of it is another parent.
CREATE TABLE need (
  job_id      INTEGER NOT NULL REFERENCES job (id),
  parent      TEXT    NOT NULL,
  fingerprint TEXT    NOT NULL,
  -- Why its output could not be had when it was last asked for; empty where nothing is known against it.
  problem     TEXT    NOT NULL DEFAULT '',
  PRIMARY KEY (job_id, parent, fingerprint)
) STRICT, WITHOUT ROWID;

CREATE INDEX need_problem ON need (job_id) WHERE problem <> '';

-- The exact request that was sent, where it is not the job's own: with URLs in the place of references.
ALTER TABLE attempt ADD COLUMN request TEXT;

CREATE TRIGGER need_is_final BEFORE UPDATE OF job_id, parent, fingerprint ON need
BEGIN SELECT RAISE(ABORT, 'what a job needs never changes'); END;

CREATE TRIGGER need_is_kept BEFORE DELETE ON need
BEGIN SELECT RAISE(ABORT, 'what a job needs never changes'); END;

-- Nothing is sent that waits for another job, and no reference is sent unresolved.
CREATE TRIGGER attempt_has_what_it_needs BEFORE INSERT ON attempt
WHEN (NEW.request IS NULL) = (SELECT instr(request, '{"$output":{"') > 0 FROM job WHERE id = NEW.job_id)
  OR (NEW.request IS NULL) = EXISTS (SELECT 1 FROM need WHERE job_id = NEW.job_id)
  OR instr(NEW.request, '{"$output":{"') > 0
  OR EXISTS (
    SELECT 1 FROM need JOIN job ON job.id = need.job_id
    LEFT JOIN job parent ON parent.batch_id = job.batch_id AND parent.key = need.parent
      AND parent.fingerprint = need.fingerprint
    WHERE need.job_id = NEW.job_id AND coalesce(parent.state, '') <> 'succeeded')
BEGIN SELECT RAISE(ABORT, 'a job is sent when what it needs has succeeded, with URLs in its request'); END;
