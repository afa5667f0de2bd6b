"""A person's word to a run that is alive: a unix socket beside the ledger, one line of JSON each way (docs/live.md)."""
