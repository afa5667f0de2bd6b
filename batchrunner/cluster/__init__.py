"""Several workers on one ledger in PostgreSQL: Procrastinate hands jobs out, the engine does them. Comes with
`batchrunner[cluster]`; nothing here is imported for a run of one process."""
