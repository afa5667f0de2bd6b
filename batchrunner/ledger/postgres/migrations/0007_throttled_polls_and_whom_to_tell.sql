-- As ledger/migrations/0007: polls that were answered with 429, by the minute of a run; and whom to tell how a run ended.
CREATE TABLE throttle (
  run_id BIGINT NOT NULL REFERENCES run (id),
  minute BIGINT NOT NULL,
  at     DOUBLE PRECISION NOT NULL,
  polls  BIGINT NOT NULL CHECK (polls > 0),
  PRIMARY KEY (run_id, minute)
);

ALTER TABLE batch ADD COLUMN notify TEXT COLLATE "C" NOT NULL DEFAULT '[]';
