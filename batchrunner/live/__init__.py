"""`serve`: the ledger, read beside a run, as a live page and as metrics (docs/live.md)."""
