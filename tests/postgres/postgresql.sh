#!/bin/sh
# Installs PostgreSQL's server for tests/postgres where it is missing, the system is Debian's kind and we may. Ends with 0
# where a server is there or has to be (it could be installed, so a skipped test would hide something), else with 1.
# The tests start one of their own, on a temporary folder; no service is needed, and none is started here.
command -v postgres >/dev/null 2>&1 && exit 0
for folder in /usr/lib/postgresql/*/bin; do
  [ -x "$folder/initdb" ] && [ -x "$folder/postgres" ] && exit 0
done
say() { echo "$1; the tests with PostgreSQL are skipped" >&2; exit 1; }
command -v apt-get >/dev/null 2>&1 || say "no PostgreSQL, and no apt-get to install it with"
as_root=
if [ "$(id -u)" != 0 ]; then
  sudo -n true 2>/dev/null || say "no PostgreSQL, and no right to install it (apt-get install --no-install-recommends postgresql)"
  as_root="sudo -n"
fi
install() {
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq -o DPkg::Lock::Timeout=120 --no-install-recommends postgresql >/dev/null
}
echo "installing PostgreSQL for the tests" >&2
install 2>/dev/null || { $as_root apt-get update -qq && install; } || echo "PostgreSQL could not be installed" >&2
exit 0
