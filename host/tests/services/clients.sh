#!/bin/bash
# Clients of others for tests: jose and SignalR's from npm, jwcrypto, pysignalr and schemathesis from PyPI, Chromium
# from Debian.
#
#   clients.sh make DIR    installs them into DIR, and prints SHARPFAAS_TEST_CLIENTS=DIR
#
# Installs Debian's packages where node, Chromium or Python's venv is missing and the user is root.
set -euo pipefail
. "$(dirname "$0")/packages.sh"
here=$(cd "$(dirname "$0")/../clients" && pwd)
[ "${1:-}" = make ] && [ -n "${2:-}" ] || { echo "usage: $0 make DIR" >&2; exit 2; }
mkdir -p "$2"
to=$(cd "$2" && pwd)
need node:nodejs npm:npm python3:python3-venv chromium:chromium
cp "$here"/* "$to"
{
    npm install --prefix "$to" --no-audit --no-fund --silent
    [ -x "$to/venv/bin/python" ] || python3 -m venv "$to/venv"
    "$to/venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$to/requirements.txt"
} >&2
echo "SHARPFAAS_TEST_CLIENTS=$to"
