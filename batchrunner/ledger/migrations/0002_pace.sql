-- What the service allowed when it was last asked for more; NULL where no such limit was met. The manifest's limits
-- are upper bounds, so these are never more than what a run was allowed to try.
CREATE TABLE pace (
  provider           TEXT PRIMARY KEY REFERENCES account (provider),
  submits_per_minute REAL    CHECK (submits_per_minute > 0),
  in_flight          INTEGER CHECK (in_flight > 0),
  calls_per_minute   REAL    CHECK (calls_per_minute > 0),
  learned_at         REAL    NOT NULL
) STRICT, WITHOUT ROWID;
