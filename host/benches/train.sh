#!/usr/bin/env bash
# Uses a server as its users do, for half a minute: what it does then is what `make dist` tells the compiler to make
# fast. train.sh SHARPFAAS EXAMPLES HTTP, where the first was built to write a profile when it ends, and the last is a
# component that answers HTTP requests.
set -euo pipefail

sharpfaas=$1
examples=$2
http=$3

work=$(mktemp -d)
server=
finish() {
    if [[ -n $server ]] && kill -TERM "$server" 2>/dev/null; then
        wait "$server" || true
    fi
    rm -rf "$work"
}
trap finish EXIT

"$sharpfaas" serve --listen 127.0.0.1:0 --data "$work/data" >"$work/log" 2>&1 &
server=$!
url=
for _ in {1..600}; do
    url=$(grep -o -m 1 'listening on http://[0-9.:]*' "$work/log" | cut -d ' ' -f 3) && break
    kill -0 "$server" 2>/dev/null || break
    sleep 0.1
done
if [[ -z $url ]]; then
    cat "$work/log" >&2
    echo "the server did not start: its log is above" >&2
    exit 1
fi
export SHARPFAAS_SERVER=$url

for example in hello.wasm echo.wasm csv-summary.wasm progress.wasm word-count-native; do
    "$sharpfaas" push "$examples/$example" >/dev/null
done
"$sharpfaas" push --name http "$http" >/dev/null

SHARPFAAS_TOKEN=$("$sharpfaas" token create --name training --push '*' --run '*' --read '*' --manage '*' 2>/dev/null)
export SHARPFAAS_TOKEN

# load SECONDS PATH PAYLOAD
load() {
    cat >"$work/load.lua" <<END
wrk.method = "POST"
wrk.headers["Authorization"] = "Bearer $SHARPFAAS_TOKEN"
wrk.headers["Content-Type"] = "application/json"
wrk.body = [[$3]]
END
    wrk -t1 -c32 "-d$1s" -s "$work/load.lua" "$url$2" >"$work/answers"
    if grep -q 'Non-2xx\|Socket errors' "$work/answers"; then
        cat "$work/answers" >&2
        echo "calls of $2 failed" >&2
        exit 1
    fi
}
run=/api/function/runfunction
load 8 "$run?functionName=echo&lane=dev" '{"name": "Ada", "items": [{"sku": "a-1", "count": 2}], "note": "please ring twice"}'
load 4 "$run?functionName=hello&lane=dev&callerId=training" '{"name": "Ada"}'
load 3 "$run" '{"functionName": "csv-summary", "lane": "dev", "payload": {"csv": "city,people\nOslo,709037\n"}}'
load 3 "$run?functionName=word-count-native&lane=dev" '{"text": "to be or not to be"}'
load 3 /fn/dev/echo '{"name": "Ada"}'
load 5 /fn/dev/http '{"name": "Ada", "items": [{"sku": "a-1", "count": 2}]}'
job='{"functionName": "hello", "lane": "dev", "payload": {"name": "Ada"}}'
load 2 /api/jobs "{\"jobs\": [$(printf "$job, %.0s" {1..99})$job]}"
for _ in {1..40}; do
    "$sharpfaas" run hello '{"name": "Ada"}' >/dev/null 2>&1
    "$sharpfaas" jobs enqueue hello '{"name": "Ada"}' >/dev/null 2>&1
done
"$sharpfaas" run progress '{"steps": 3}' >/dev/null 2>&1
"$sharpfaas" functions >/dev/null
"$sharpfaas" history >/dev/null
"$sharpfaas" jobs list >/dev/null
