-- The manifest's bounds for single providers and models, as JSON (`core.limits`): `resume` has no manifest to read.
ALTER TABLE batch ADD COLUMN limits TEXT COLLATE "C" NOT NULL DEFAULT '{}';
