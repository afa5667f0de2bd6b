"""All SQL: the schema and its migrations, the one writer with group commit, and read-only queries."""
