-- The ledger, version 1. Times are unix seconds (UTC). Credits are whole.
-- The rules of core/lifecycle.py stand here a second time, so that no bug above can write a lie.

CREATE TABLE batch (
  id                 INTEGER PRIMARY KEY,
  name               TEXT    NOT NULL UNIQUE,
  provider           TEXT    NOT NULL,
  manifest           TEXT    NOT NULL,
  profile            TEXT,
  output_dir         TEXT    NOT NULL,
  max_credits        INTEGER CHECK (max_credits >= 0),
  -- The cap once more, as nothing else tells of a flipped bit in it: `quick_check` sees the two disagree.
  cap_again          INTEGER AS (-max_credits) STORED CHECK (cap_again IS -max_credits),
  submits_per_minute REAL    NOT NULL CHECK (submits_per_minute > 0),
  in_flight          INTEGER NOT NULL CHECK (in_flight > 0),
  retry_provider     INTEGER NOT NULL DEFAULT 0 CHECK (retry_provider >= 0),
  retry_moderated    INTEGER NOT NULL DEFAULT 0 CHECK (retry_moderated >= 0),
  -- Sums over `attempt`, kept by triggers in the same transaction.
  reserved           INTEGER NOT NULL DEFAULT 0 CHECK (reserved >= 0),
  spent              INTEGER NOT NULL DEFAULT 0 CHECK (spent >= 0),
  at_risk            INTEGER NOT NULL DEFAULT 0 CHECK (at_risk >= 0),
  created_at         REAL    NOT NULL,
  updated_at         REAL    NOT NULL
) STRICT;

CREATE TABLE job (
  id            INTEGER PRIMARY KEY,
  batch_id      INTEGER NOT NULL REFERENCES batch (id),
  key           TEXT    NOT NULL,
  revision      INTEGER NOT NULL CHECK (revision >= 1),
  fingerprint   TEXT    NOT NULL,
  current       INTEGER NOT NULL DEFAULT 1 CHECK (current IN (0, 1)),
  position      INTEGER NOT NULL,
  shot          TEXT    NOT NULL,
  take          INTEGER NOT NULL,
  matrix        TEXT    NOT NULL,
  tags          TEXT    NOT NULL,
  provider      TEXT    NOT NULL,
  model         TEXT    NOT NULL,
  request       TEXT    NOT NULL,
  seconds       INTEGER,
  credits       INTEGER CHECK (credits >= 0),
  credits_again INTEGER AS (-credits) STORED CHECK (credits_again IS -credits), -- as `batch.cap_again`
  output        TEXT    NOT NULL,
  named         INTEGER NOT NULL CHECK (named IN (0, 1)),

  state         TEXT    NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'submitting', 'unconfirmed',
                        'running', 'downloading', 'succeeded', 'failed', 'cancelled')),
  attempt       INTEGER NOT NULL DEFAULT 0 CHECK (attempt >= 0),
  not_before    REAL    NOT NULL DEFAULT 0,
  task_id       TEXT,
  urls          TEXT,
  renewals      INTEGER NOT NULL DEFAULT 0,
  error_kind    TEXT,
  error_code    ANY,
  error_message TEXT,
  error_status  INTEGER,
  error_request_id TEXT,
  file          TEXT,
  sha256        TEXT,
  bytes         INTEGER,

  retries_provider  INTEGER NOT NULL DEFAULT 0,
  retries_moderated INTEGER NOT NULL DEFAULT 0,
  next_poll_at  REAL,
  polls         INTEGER NOT NULL DEFAULT 0,
  created_at    REAL    NOT NULL,
  updated_at    REAL    NOT NULL,

  UNIQUE (batch_id, key, fingerprint),
  UNIQUE (batch_id, key, revision),
  CHECK (state NOT IN ('running', 'downloading', 'succeeded') OR task_id IS NOT NULL),
  CHECK (state IN ('pending', 'cancelled') OR attempt >= 1),
  CHECK ((state = 'downloading') = (urls IS NOT NULL)),
  CHECK ((state = 'succeeded') = (file IS NOT NULL)),
  CHECK ((file IS NULL) = (sha256 IS NULL) AND (file IS NULL) = (bytes IS NULL)),
  CHECK ((error_kind IS NULL) = (state NOT IN ('failed', 'unconfirmed'))),
  CHECK (state <> 'failed' OR error_kind IN ('rejected', 'moderated', 'provider', 'lost', 'expired', 'abandoned')),
  CHECK (state <> 'unconfirmed' OR error_kind = 'ambiguous')
) STRICT;

CREATE UNIQUE INDEX job_current ON job (batch_id, key) WHERE current = 1;
CREATE INDEX job_due   ON job (batch_id, position) WHERE state = 'pending' AND current = 1;
CREATE INDEX job_state ON job (batch_id, current, state, credits); -- `status` reads nothing else
CREATE INDEX job_live  ON job (state) WHERE state IN ('submitting', 'unconfirmed', 'running', 'downloading');
CREATE INDEX job_output ON job (output);
CREATE INDEX job_key ON job (key);

-- One row a submission: what it may have cost, and what became of it.
CREATE TABLE attempt (
  job_id      INTEGER NOT NULL REFERENCES job (id),
  number      INTEGER NOT NULL CHECK (number >= 1),
  batch_id    INTEGER NOT NULL REFERENCES batch (id),
  credits     INTEGER NOT NULL CHECK (credits >= 0),
  money       TEXT    NOT NULL CHECK (money IN ('reserved', 'at_risk', 'spent', 'none')),
  consent     TEXT,
  intent_at   REAL    NOT NULL,
  answered_at REAL,
  ended_at    REAL,
  outcome     TEXT,
  task_id     TEXT,
  request_id  TEXT,
  PRIMARY KEY (job_id, number)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX attempt_task ON attempt (task_id) WHERE task_id IS NOT NULL;

-- Every transition, appended in its own transaction; never changed.
CREATE TABLE history (
  id         INTEGER PRIMARY KEY,
  job_id     INTEGER NOT NULL REFERENCES job (id),
  at         REAL    NOT NULL,
  attempt    INTEGER NOT NULL,
  from_state TEXT,
  to_state   TEXT    NOT NULL,
  event      TEXT    NOT NULL,
  reason     TEXT    NOT NULL DEFAULT '',
  who        TEXT    NOT NULL DEFAULT ''
) STRICT;

CREATE INDEX history_job ON history (job_id);

CREATE TABLE run (
  id           INTEGER PRIMARY KEY,
  started_at   REAL    NOT NULL,
  ended_at     REAL,
  heartbeat_at REAL    NOT NULL,
  pid          INTEGER NOT NULL,
  host         TEXT    NOT NULL,
  batches      TEXT    NOT NULL,
  progress     TEXT    NOT NULL DEFAULT '{}',
  stop         TEXT,
  exit_code    INTEGER
) STRICT;

-- The account that this ledger belongs to: where its key was first used, and until when a 429 holds every call.
CREATE TABLE account (
  provider   TEXT PRIMARY KEY,
  origin     TEXT NOT NULL,
  hold_until REAL NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

-- How long tasks took, newest kept: what polling learns from.
CREATE TABLE latency (
  id      INTEGER PRIMARY KEY,
  model   TEXT    NOT NULL,
  seconds INTEGER,
  took    REAL    NOT NULL CHECK (took >= 0)
) STRICT;

CREATE INDEX latency_model ON latency (model, id);

-- The legal moves between states: `core.lifecycle.TABLE` without the events. A test compares the two.
CREATE TABLE legal (
  from_state TEXT NOT NULL,
  to_state   TEXT NOT NULL,
  PRIMARY KEY (from_state, to_state)
) STRICT, WITHOUT ROWID;

INSERT INTO legal (from_state, to_state) VALUES
  ('pending', 'submitting'),
  ('pending', 'cancelled'),
  ('submitting', 'running'),
  ('submitting', 'pending'),
  ('submitting', 'failed'),
  ('submitting', 'unconfirmed'),
  ('unconfirmed', 'running'),
  ('unconfirmed', 'pending'),
  ('unconfirmed', 'failed'),
  ('running', 'downloading'),
  ('running', 'failed'),
  ('running', 'pending'),
  ('downloading', 'succeeded'),
  ('downloading', 'running'),
  ('downloading', 'failed'),
  ('failed', 'pending');

CREATE TRIGGER job_born_pending BEFORE INSERT ON job
WHEN NEW.state <> 'pending' OR NEW.attempt <> 0
BEGIN SELECT RAISE(ABORT, 'a job is born pending'); END;

CREATE TRIGGER job_legal_move BEFORE UPDATE OF state ON job
WHEN NOT EXISTS (SELECT 1 FROM legal WHERE from_state = OLD.state AND to_state = NEW.state)
BEGIN SELECT RAISE(ABORT, 'illegal transition'); END;

CREATE TRIGGER job_attempt_counts BEFORE UPDATE OF state, attempt ON job
WHEN NEW.attempt <> OLD.attempt + (NEW.state = 'submitting')
BEGIN SELECT RAISE(ABORT, 'the attempt number moves with a submission only'); END;

CREATE TRIGGER job_is_what_it_was BEFORE UPDATE OF batch_id, key, revision, fingerprint, request, model, provider ON job
BEGIN SELECT RAISE(ABORT, 'what a job asks for never changes; a change is a new revision'); END;

CREATE TRIGGER job_never_deleted BEFORE DELETE ON job
BEGIN SELECT RAISE(ABORT, 'jobs are never deleted'); END;

CREATE TRIGGER submitting_has_intent BEFORE UPDATE OF state ON job
WHEN NEW.state = 'submitting' AND NOT EXISTS (
  SELECT 1 FROM attempt WHERE job_id = NEW.id AND number = NEW.attempt AND money = 'reserved')
BEGIN SELECT RAISE(ABORT, 'no submission without a reserved attempt'); END;

-- P1: after a POST that may have been accepted, no other without recorded consent.
CREATE TRIGGER attempt_needs_consent BEFORE INSERT ON attempt
WHEN EXISTS (SELECT 1 FROM attempt WHERE job_id = NEW.job_id AND money <> 'none' AND consent IS NULL)
BEGIN SELECT RAISE(ABORT, 'another submission needs consent'); END;

-- P5: never beyond the cap, whoever asks.
CREATE TRIGGER attempt_within_budget BEFORE INSERT ON attempt
WHEN EXISTS (SELECT 1 FROM batch WHERE id = NEW.batch_id AND max_credits IS NOT NULL
             AND reserved + spent + at_risk + NEW.credits > max_credits)
BEGIN SELECT RAISE(ABORT, 'budget'); END;

CREATE TRIGGER attempt_born_reserved BEFORE INSERT ON attempt
WHEN NEW.money <> 'reserved'
BEGIN SELECT RAISE(ABORT, 'an attempt is born reserved'); END;

CREATE TRIGGER attempt_never_deleted BEFORE DELETE ON attempt
BEGIN SELECT RAISE(ABORT, 'attempts are never deleted'); END;

CREATE TRIGGER attempt_reserves AFTER INSERT ON attempt
BEGIN
  UPDATE batch SET reserved = reserved + NEW.credits WHERE id = NEW.batch_id;
END;

CREATE TRIGGER attempt_settles AFTER UPDATE OF money, credits ON attempt
WHEN OLD.money <> NEW.money OR OLD.credits <> NEW.credits
BEGIN
  UPDATE batch SET
    reserved = reserved - OLD.credits * (OLD.money = 'reserved') + NEW.credits * (NEW.money = 'reserved'),
    spent    = spent    - OLD.credits * (OLD.money = 'spent')    + NEW.credits * (NEW.money = 'spent'),
    at_risk  = at_risk  - OLD.credits * (OLD.money = 'at_risk')  + NEW.credits * (NEW.money = 'at_risk')
  WHERE id = NEW.batch_id;
END;

CREATE TRIGGER history_is_final BEFORE UPDATE ON history
BEGIN SELECT RAISE(ABORT, 'history is never changed'); END;

CREATE TRIGGER history_is_kept BEFORE DELETE ON history
BEGIN SELECT RAISE(ABORT, 'history is never deleted'); END;
