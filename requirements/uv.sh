#!/bin/sh
# Prints the path of a uv, fetching one into .tools/ when there is none. Needs python3 and the package registries only.
set -eu
cd "$(dirname "$0")/.."
WANTED='uv>=0.9,<1'

say() { echo "requirements/uv.sh: $*" >&2; }

from_venv() { python3 -m venv .tools >/dev/null 2>&1 && .tools/bin/python -m pip install --quiet "$WANTED" >&2; }

# Debian packs venv and pip apart from python3; without either, apt brings them.
from_apt() {
    command -v apt-get >/dev/null || return 1
    as_root=
    [ "$(id -u)" = 0 ] || as_root='sudo -n'
    say 'python3 has no venv here; installing python3-venv with apt-get'
    { $as_root apt-get -qq update && $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends python3-venv; } >&2
}

if command -v uv; then exit; fi
if [ ! -x .tools/bin/uv ]; then
    command -v python3 >/dev/null || { say 'python3 is missing; install Python 3.11 or newer'; exit 1; }
    from_venv || { rm -rf .tools; from_apt && from_venv; } || {
        rm -rf .tools
        say 'could not install uv; install it, or python3-venv, by hand and try again'
        exit 1
    }
fi
echo "$PWD/.tools/bin/uv"
