-- Services that can be asked what became of a submission, by what the packages say of those whom workers serve.
CREATE TABLE askable (
  provider TEXT COLLATE "C" PRIMARY KEY
);

-- Unconfirmed submissions whose service is to be asked, or was. `consent`: who has said that it may be sent again if the
-- service knows nothing of it.
CREATE TABLE question (
  job_id  BIGINT PRIMARY KEY REFERENCES job (id),
  attempt BIGINT NOT NULL,
  open    BOOLEAN NOT NULL,
  consent TEXT COLLATE "C"
);

CREATE INDEX question_open ON question (job_id) WHERE open;
