#!/bin/sh
# Run the venv's uv with the package index that pip is configured for: uv does not
# read pip's configuration, so a machine behind a mirror would be out of luck.
# Nothing of it is ever written to a file.
set -eu

VENV="${VENV:-.venv}"

pip_setting() { # NAME: the value from PIP_NAME or pip's configuration files, or ""
    variable="PIP_$(echo "$1" | tr 'a-z-' 'A-Z_')"
    eval "value=\${$variable:-}"
    if [ -z "$value" ]; then
        value="$("$VENV/bin/python" -m pip config get "global.$1" 2>/dev/null || true)"
    fi
    echo "$value" | tr '\n' ' ' | sed 's/  */ /g; s/^ //; s/ $//'
}

index="$(pip_setting index-url)"
extra="$(pip_setting extra-index-url)"
links="$(pip_setting find-links)"
cert="$(pip_setting cert)"
hosts="$(pip_setting trusted-host)"
[ -n "$index" ] && export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$index}"
[ -n "$extra" ] && export UV_INDEX="${UV_INDEX:-$extra}"
[ -n "$links" ] && export UV_FIND_LINKS="${UV_FIND_LINKS:-$(echo "$links" | tr ' ' ',')}"
[ -n "$cert" ] && export SSL_CERT_FILE="${SSL_CERT_FILE:-$cert}"
[ -n "$hosts" ] && export UV_INSECURE_HOST="${UV_INSECURE_HOST:-$hosts}"
# As pip does: look at every index. Safe here, since every file's hash is checked.
export UV_INDEX_STRATEGY="${UV_INDEX_STRATEGY:-unsafe-best-match}"
export UV_HTTP_TIMEOUT="${UV_HTTP_TIMEOUT:-180}"

exec "$VENV/bin/python" -m uv "$@"
