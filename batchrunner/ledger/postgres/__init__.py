"""The ledger in PostgreSQL. Nothing here is imported for a ledger in a file; psycopg comes with
`batchrunner[cluster]`."""
