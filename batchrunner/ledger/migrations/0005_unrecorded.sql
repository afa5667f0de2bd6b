-- Jobs of the batch's manifest that are not in the ledger yet. A large new batch begins to be sent while the rest is
-- still being recorded; what says so must outlive the run, so that nobody takes a part of a batch for all of it.
ALTER TABLE batch ADD COLUMN unrecorded INTEGER NOT NULL DEFAULT 0 CHECK (unrecorded >= 0);
