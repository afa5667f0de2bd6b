-- What a task gave, file by file, and where it is not what was ordered. Written with the job's success, in its
-- transaction; a later `check` writes it anew. Nothing here decides about money or about what is sent.
CREATE TABLE media (
  job_id     INTEGER NOT NULL REFERENCES job (id),
  attempt    INTEGER NOT NULL CHECK (attempt >= 1),
  number     INTEGER NOT NULL CHECK (number >= 0), -- 1, 2, ... in the task's order; 0 for the last frame
  kind       TEXT    NOT NULL CHECK (kind IN ('video', 'image', 'audio')),
  url        TEXT    NOT NULL,
  file       TEXT,
  sha256     TEXT,
  bytes      INTEGER CHECK (bytes >= 0),
  facts      TEXT    NOT NULL, -- JSON object
  warnings   TEXT    NOT NULL, -- JSON array of sentences
  checked_at REAL    NOT NULL,
  PRIMARY KEY (job_id, attempt, number),
  CHECK ((file IS NULL) = (sha256 IS NULL) AND (file IS NULL) = (bytes IS NULL)),
  CHECK (file IS NOT NULL OR number = 0)
) STRICT, WITHOUT ROWID;

CREATE INDEX media_warned ON media (job_id) WHERE warnings <> '[]';
