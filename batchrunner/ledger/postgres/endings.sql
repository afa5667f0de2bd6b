-- The ends of batches that workers do: each is told of once, by the one whose row it is. A batch has another end when
-- something was submitted since the last one.
CREATE TABLE ending (
  batch_id    BIGINT NOT NULL REFERENCES batch (id),
  submissions BIGINT NOT NULL,
  at          DOUBLE PRECISION NOT NULL,
  worker_id   BIGINT NOT NULL REFERENCES worker (id),
  told_at     DOUBLE PRECISION,
  PRIMARY KEY (batch_id, submissions)
);
