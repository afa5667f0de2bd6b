#!/bin/sh
# Installs Chromium for tests/browser where it is missing, the system is Debian's kind and we may. Ends with 0 where a
# browser is there or has to be (it could be installed, so a skipped test would hide something), else with 1.
for name in "${BATCHRUNNER_CHROMIUM:-chromium}" chromium-browser google-chrome; do
  command -v "$name" >/dev/null 2>&1 && exit 0
done
say() { echo "$1; the browser tests are skipped" >&2; exit 1; }
command -v apt-get >/dev/null 2>&1 || say "no Chromium, and no apt-get to install it with"
as_root=
if [ "$(id -u)" != 0 ]; then
  sudo -n true 2>/dev/null || say "no Chromium, and no right to install it (apt-get install --no-install-recommends chromium)"
  as_root="sudo -n"
fi
install() {
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq -o DPkg::Lock::Timeout=120 --no-install-recommends chromium >/dev/null
}
echo "installing Chromium for the browser tests" >&2
install 2>/dev/null || { $as_root apt-get update -qq && install; } || echo "Chromium could not be installed" >&2
exit 0
