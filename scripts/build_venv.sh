#!/bin/sh
# Build .venv from requirements.lock, exactly. Called by make; safe to interrupt:
# the stamp that says "done" is written last.
set -eu

PYTHON="${PYTHON:-python3}"
VENV="${VENV:-.venv}"
CHECK='import sys; sys.exit(sys.version_info < (3, 11))'

say() { echo "$*" >&2; }

fail() {
    say "error: $*"
    exit 2
}

# Debian keeps pip for virtual environments in packages of their own. Take it from
# there without installing anything: the wheel can be run as it is.
make_venv_with_debians_pip() {
    command -v apt-get > /dev/null && command -v dpkg-deb > /dev/null || return 1
    say "this Python has no ensurepip: taking pip from Debian's python3-pip-whl"
    folder="$(mktemp -d)"
    chmod 755 "$folder"
    (
        cd "$folder"
        apt-get -qq download python3-pip-whl 2> /dev/null || {
            # No package lists yet: get them into this folder, which needs no root.
            mkdir -p lists/partial cache/archives/partial
            set -- -qq -o Dir::State::lists="$folder/lists" \
                -o Dir::Cache="$folder/cache"
            apt-get "$@" update && apt-get "$@" download python3-pip-whl
        }
        dpkg-deb -x python3-pip-whl_*.deb .
    ) || { rm -rf "$folder"; return 1; }
    wheel="$(ls "$folder"/usr/share/python-wheels/pip-*.whl)"
    "$PYTHON" -m venv --clear --without-pip "$VENV" &&
        "$VENV/bin/python" "$wheel/pip" --disable-pip-version-check install \
            --quiet --no-index "$wheel" || { rm -rf "$folder"; return 1; }
    rm -rf "$folder"
}

command -v "$PYTHON" > /dev/null || fail "there is no $PYTHON here; install Python" \
    "3.11 or newer, or name one: make PYTHON=/path/to/python3"
"$PYTHON" -c "$CHECK" || fail "$("$PYTHON" --version) is too old, 3.11 or newer is" \
    "needed; name another one: make PYTHON=/path/to/python3.11"

rm -f "$VENV/.stamp"
if ! { "$VENV/bin/python" -c "$CHECK" && "$VENV/bin/python" -m pip --version; } \
    > /dev/null 2>&1; then
    say "making $VENV with $("$PYTHON" --version)"
    if "$PYTHON" -c 'import ensurepip, venv' 2> /dev/null; then
        "$PYTHON" -m venv --clear "$VENV"
    else
        make_venv_with_debians_pip || fail "this Python can't make virtual" \
            "environments; as root: apt-get install python3-venv"
    fi
fi

export PIP_DISABLE_PIP_VERSION_CHECK=1
pip() { "$VENV/bin/python" -m pip "$@"; }

say "installing the packages of requirements.lock (2 GB once unpacked)"
if pip install --quiet --no-deps --require-hashes -r requirements-uv.txt; then
    # `sync` also takes out what an older lock had brought in.
    VENV="$VENV" sh scripts/uv.sh pip sync --quiet --python "$VENV/bin/python" \
        --require-hashes requirements.lock requirements-uv.txt
else
    say "uv can't be had here; going on with pip, which takes some minutes"
    pip install --progress-bar off --quiet --no-deps --require-hashes \
        -r requirements.lock
fi
pip install --quiet --no-deps --no-build-isolation --editable .
"$VENV/bin/python" -c 'import nebula_utils'
touch "$VENV/.stamp"
say "$VENV is ready"
