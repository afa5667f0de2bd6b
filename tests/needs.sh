#!/bin/sh
# sh tests/needs.sh chromium|postgresql
# Installs what tests need and pip has not, where it is missing, the system is Debian's kind and we may. Ends with 0 where
# it is there or has to be (it could be installed, so a skipped test would hide something), else with 1.
# No service is needed, and none is started here.
package=$1
case $package in
  chromium) for name in "${BATCHRUNNER_CHROMIUM:-chromium}" chromium-browser google-chrome; do
    command -v "$name" >/dev/null 2>&1 && exit 0
  done ;;
  postgresql) for server in $(command -v postgres) /usr/lib/postgresql/*/bin/postgres; do
    [ -x "$server" ] && [ -x "${server%/*}/initdb" ] && exit 0
  done ;;
  *) echo "usage: sh tests/needs.sh chromium|postgresql" >&2; exit 2 ;;
esac
say() { echo "no $package, and no $1; the tests that need it are skipped" >&2; exit 1; }
command -v apt-get >/dev/null 2>&1 || say "apt-get to install it with"
as_root=
if [ "$(id -u)" != 0 ]; then
  sudo -n true 2>/dev/null || say "right to install it (apt-get install --no-install-recommends $package)"
  as_root="sudo -n"
fi
install() {
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq -o DPkg::Lock::Timeout=120 --no-install-recommends "$package" >/dev/null
}
echo "installing $package for the tests" >&2
install 2>/dev/null || { $as_root apt-get update -qq && install; } || echo "$package could not be installed" >&2
exit 0
