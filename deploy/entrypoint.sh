#!/bin/sh
# Secrets as files: where NAME_FILE is set, NAME is what stands in that file. Then the command itself, in this process's
# place, so that signals reach it.
set -eu
for name in REAPI_API_KEY FAL_KEY REPLICATE_API_TOKEN PGPASSWORD AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY; do
  eval "file=\${${name}_FILE:-}"
  [ -n "$file" ] || continue
  [ -r "$file" ] || { echo "${name}_FILE: can't read $file" >&2; exit 2; }
  value=$(cat "$file")
  export "$name=$value"
  unset "${name}_FILE"
done
exec "$@"
