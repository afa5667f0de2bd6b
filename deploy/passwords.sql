-- For psql, after roles.sql: each role's password is what stands in the file of its name in $SECRETS (/run/secrets).
\set QUIET on
\set owner `cat "${SECRETS:-/run/secrets}/owner"`
\set runner `cat "${SECRETS:-/run/secrets}/runner"`
\set worker `cat "${SECRETS:-/run/secrets}/worker"`
\set onlooker `cat "${SECRETS:-/run/secrets}/onlooker"`
SET password_encryption = 'scram-sha-256';
SET log_statement = 'none';
ALTER ROLE batchrunner_owner PASSWORD :'owner';
ALTER ROLE batchrunner_runner PASSWORD :'runner';
ALTER ROLE batchrunner_worker PASSWORD :'worker';
ALTER ROLE batchrunner_onlooker PASSWORD :'onlooker';
