-- What a person thinks of a finished clip. Appended and never changed; the newest word on a job counts.
CREATE TABLE verdict (
  id      INTEGER PRIMARY KEY,
  job_id  INTEGER NOT NULL REFERENCES job (id),
  at      REAL    NOT NULL,
  verdict TEXT    NOT NULL CHECK (verdict IN ('approved', 'rejected')),
  note    TEXT    NOT NULL DEFAULT '',
  who     TEXT    NOT NULL
) STRICT;

CREATE INDEX verdict_job ON verdict (job_id, id);

CREATE TRIGGER verdict_of_a_clip BEFORE INSERT ON verdict
WHEN NOT EXISTS (SELECT 1 FROM job WHERE id = NEW.job_id AND state = 'succeeded')
BEGIN SELECT RAISE(ABORT, 'only a finished clip can be judged'); END;

CREATE TRIGGER verdict_is_final BEFORE UPDATE ON verdict
BEGIN SELECT RAISE(ABORT, 'verdicts are never changed'); END;

CREATE TRIGGER verdict_is_kept BEFORE DELETE ON verdict
BEGIN SELECT RAISE(ABORT, 'verdicts are never deleted'); END;

-- Where a job comes from that `promote` asked for and no manifest does: an approved job, by its very revision.
CREATE TABLE promotion (
  job_id   INTEGER PRIMARY KEY REFERENCES job (id),
  from_job INTEGER NOT NULL REFERENCES job (id) CHECK (from_job <> job_id),
  profile  TEXT    NOT NULL,
  at       REAL    NOT NULL,
  who      TEXT    NOT NULL
) STRICT;

CREATE INDEX promotion_from ON promotion (from_job);

CREATE TRIGGER promotion_of_a_winner BEFORE INSERT ON promotion
WHEN coalesce((SELECT verdict FROM verdict WHERE job_id = NEW.from_job ORDER BY id DESC LIMIT 1), '') <> 'approved'
BEGIN SELECT RAISE(ABORT, 'only an approved job is promoted'); END;

CREATE TRIGGER promotion_is_final BEFORE UPDATE ON promotion
BEGIN SELECT RAISE(ABORT, 'lineage is never changed'); END;

CREATE TRIGGER promotion_is_kept BEFORE DELETE ON promotion
BEGIN SELECT RAISE(ABORT, 'lineage is never deleted'); END;
