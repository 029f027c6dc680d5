#!/bin/bash
# The SDKs for JavaScript and Python: their own tests, and the components of the examples that use them.
#
#   sdks.sh make DIR    builds them in DIR, and prints SHARPFAAS_TEST_SDKS=DIR, where the components are then
#
# Installs Debian's packages where node, npm or Python's venv is missing and the user is root; what else is needed comes
# from npm and PyPI, into DIR.
set -euo pipefail
. "$(dirname "$0")/packages.sh"
root=$(cd "$(dirname "$0")/../../.." && pwd)
[ "${1:-}" = make ] && [ -n "${2:-}" ] || { echo "usage: $0 make DIR" >&2; exit 2; }
mkdir -p "$2"
to=$(cd "$2" && pwd)
need node:nodejs npm:npm python3:python3-venv
# Nothing is built or installed in the checkout; the SDKs and examples lie to one another as they do there.
mkdir -p "$to/guest-sdk" "$to/examples"
cp -r "$root/guest-sdk/wit" "$root/guest-sdk/js" "$root/guest-sdk/python" "$to/guest-sdk/"
cp -r "$root/examples/js-invoice" "$root/examples/python-access-log" "$to/examples/"
export PYTHONDONTWRITEBYTECODE=1
sdk="$to/guest-sdk/python/src"
{
    cd "$to/guest-sdk/js"
    node --test
    cd "$to/examples/js-invoice"
    npm ci --no-audit --no-fund --silent
    npm test
    npm run build --silent -- --out "$to/js-invoice.wasm"

    cd "$to/examples/python-access-log"
    [ -x "$to/venv/bin/python" ] || python3 -m venv "$to/venv"
    "$to/venv/bin/pip" install --quiet --disable-pip-version-check --requirement requirements.txt
    PYTHONPATH="$sdk" "$to/venv/bin/python" -m unittest discover "$to/guest-sdk/python/tests"
    PYTHONPATH=".:$sdk" "$to/venv/bin/python" -m unittest discover tests
    PYTHONPATH="$sdk" "$to/venv/bin/python" -m sharpfaas.build --out "$to/python-access-log.wasm"

    # Functions that do what the tests ask for, on each engine. The module finds the SDK beside the example.
    fixtures="$root/host/tests/fixtures/sdks"
    cd "$to/examples/js-invoice"
    cp "$fixtures/probe.js" .
    npx sharpfaas-build probe.js --out "$to/probe-starlingmonkey.wasm"
    npx sharpfaas-build probe.js --engine quickjs --out "$to/probe-quickjs.wasm"
    PYTHONPATH="$sdk" "$to/venv/bin/python" -m sharpfaas.build probe --path "$fixtures" --out "$to/probe-python.wasm"
} >&2
echo "SHARPFAAS_TEST_SDKS=$to"
