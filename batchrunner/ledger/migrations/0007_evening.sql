-- Polls that were answered with 429, by the minute of a run: for the morning's picture, and for nothing else. A
-- submission's 429 is a transition, and stands in `history`.
CREATE TABLE throttle (
  run_id INTEGER NOT NULL REFERENCES run (id),
  minute INTEGER NOT NULL, -- unix seconds / 60
  at     REAL    NOT NULL, -- the first of them
  polls  INTEGER NOT NULL CHECK (polls > 0),
  PRIMARY KEY (run_id, minute)
) STRICT, WITHOUT ROWID;

-- Whom the manifest wants to be told how a run ended, for `resume`, which reads no manifest: JSON. Addresses are not in
-- it (core/notice.py).
ALTER TABLE batch ADD COLUMN notify TEXT NOT NULL DEFAULT '[]';
