#!/usr/bin/env bash
# Starts a server, pushes a component and a native program, runs both, and goes on serving.
# `make demo` builds what it needs and calls it: demo.sh SHARPFAAS EXAMPLES ADDRESS:PORT
set -euo pipefail

sharpfaas=$1
examples=$2
listen=$3

server=
follower=
log=$(mktemp)
finish() {
    trap - EXIT INT TERM
    if [[ -n $server ]] && kill -TERM "$server" 2>/dev/null; then
        echo "stopping the server"
        wait "$server" || true
    fi
    if [[ -n $follower ]]; then
        kill "$follower" 2>/dev/null || true
    fi
    rm -f "$log"
}
trap finish EXIT
trap 'echo; exit 0' INT TERM

# Whether somebody listens there already.
if (exec 3<>"/dev/tcp/${listen%:*}/${listen##*:}") 2>/dev/null; then
    echo "something listens on $listen already, so the demo takes a free port (LISTEN=ADDRESS:PORT picks another)"
    listen="${listen%:*}:0"
fi

"$sharpfaas" serve --listen "$listen" >"$log" 2>&1 &
server=$!
url=
for _ in {1..600}; do
    url=$(grep -o -m 1 'listening on http://[0-9.:]*' "$log" | cut -d ' ' -f 3) && break
    if ! kill -0 "$server" 2>/dev/null; then
        cat "$log" >&2
        echo "the server did not start: its log is above" >&2
        exit 1
    fi
    sleep 0.1
done
if [[ -z $url ]]; then
    cat "$log" >&2
    echo "the server was not ready within a minute: its log is above" >&2
    exit 1
fi
export SHARPFAAS_SERVER=$url
echo "the server listens on $url"

# Shows a command as one would type it, and runs it.
run() {
    local shown=sharpfaas argument
    for argument in "$@"; do
        case $argument in
            "$examples"/*) shown+=" ${argument##*/}" ;;
            *[\ \{\"]*) shown+=" '$argument'" ;;
            *) shown+=" $argument" ;;
        esac
    done
    echo
    echo "\$ $shown"
    "$sharpfaas" "$@"
}

run push "$examples/hello.wasm"
run run hello '{"name": "Ada"}'
run push "$examples/word-count-native"
run run word-count-native '{"text": "to be or not to be"}'
run functions

cat <<END

It works. The server goes on; from another terminal, try:

  export SHARPFAAS_SERVER=$url PATH="${sharpfaas%/*}:\$PATH"
  sharpfaas push $examples/progress.wasm
  sharpfaas run progress '{"steps": 10}'
  sharpfaas history
  curl --data '{"name": "Grace"}' '$url/api/function/runfunction?functionName=hello&lane=dev'

The API is described at $url/openapi.json, and examples/README.md shows more functions.
Ctrl-c stops the server. Its log from here on:

END
tail -n 0 -f "$log" &
follower=$!
# The server is ended by `finish`, so when it ends by itself something is wrong.
wait "$server" || { server=; echo "the server ended" >&2; exit 1; }
server=
