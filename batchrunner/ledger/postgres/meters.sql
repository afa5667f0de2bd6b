-- When the next submission of a model is due that has a bound of its own (GCRA, as `rate` of an account).
CREATE TABLE meter (
  name   TEXT COLLATE "C" PRIMARY KEY,
  due_at DOUBLE PRECISION NOT NULL
);
