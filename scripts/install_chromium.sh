#!/bin/sh
# See to a Chromium for the browser tests. Nothing is installed on anybody's machine:
# without one they are skipped, with the command that a person may run. In CI
# (CI=true) they must run, so there root installs it, and to fail is an error.
set -eu

for name in chromium chromium-browser google-chrome; do
    command -v "$name" > /dev/null && exit 0
done
if [ "${CI:-}" != true ]; then
    echo "no Chromium here: the browser tests will be skipped; on Debian" \
        "\`apt-get install chromium\` (as root) makes them run" >&2
    exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
    echo "installing Debian's chromium for the browser tests" >&2
    set -- apt-get -qq -y --no-install-recommends install chromium
    export DEBIAN_FRONTEND=noninteractive
    "$@" > /dev/null 2>&1 && exit 0
    apt-get -qq update && "$@" > /dev/null && exit 0
fi
echo "error: no Chromium could be installed, and in CI the browser tests must run" >&2
exit 1
