#!/bin/sh
# See to a Chromium for the browser tests. Without one they are skipped, with a
# message; in CI (CI=true) they must run, so there a failing install is an error.
set -eu

found="$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)"
[ -n "$found" ] && exit 0

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

install() {
    command -v apt-get > /dev/null || return 1
    as_root true 2> /dev/null || return 1
    echo "installing Debian's chromium for the browser tests" >&2
    set -- apt-get -qq -y --no-install-recommends install chromium
    export DEBIAN_FRONTEND=noninteractive
    as_root "$@" > /dev/null 2>&1 || {
        as_root apt-get -qq update && as_root "$@" > /dev/null
    }
}

if install; then
    exit 0
fi
if [ "${CI:-}" = true ]; then
    echo "error: no Chromium could be installed, and in CI the browser tests must run" >&2
    exit 1
fi
echo "no Chromium here and none could be installed: the browser tests will be" \
    "skipped (as root: apt-get install chromium)" >&2
