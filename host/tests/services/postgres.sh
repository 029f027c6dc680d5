#!/bin/sh
# A private PostgreSQL server for tests, on a free port of 127.0.0.1.
#
#   postgres.sh start [DIR]    makes and starts one in DIR (none: a new temporary folder); a DIR that
#                              holds one already is started again, on its old port. Prints
#                                SHARPFAAS_TEST_POSTGRES=postgres://…
#                                SHARPFAAS_TEST_POSTGRES_PASSWORD=…
#                                SHARPFAAS_TEST_POSTGRES_DIR=DIR
#   postgres.sh stop DIR       stops it; connections are cut
#   postgres.sh restart DIR    both
#   postgres.sh freeze DIR     holds all its processes, so that it is there and does not answer
#   postgres.sh thaw DIR       lets them go on
#   postgres.sh delete DIR     stops it and removes DIR
#
# Installs Debian's package where PostgreSQL is missing and the user is root. PostgreSQL refuses to run
# as root; then it runs as the user `postgres`.
set -eu

password=sharpfaas-test
command=${1:?"usage: $0 start|stop|restart|freeze|thaw|delete [DIR]"}

find_binaries() {
    for folder in /usr/lib/postgresql/*/bin; do
        if [ -x "$folder/initdb" ]; then bin=$folder; fi
    done
}
bin=
find_binaries
if [ -z "$bin" ] && [ "$(id -u)" = 0 ]; then
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends postgresql; } >&2
    find_binaries
fi
if [ -z "$bin" ]; then
    echo "$0: no PostgreSQL in /usr/lib/postgresql: install Debian's package 'postgresql'" >&2
    exit 1
fi

unprivileged() {
    if [ "$(id -u)" = 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi
}

create() {
    if [ "$(id -u)" = 0 ]; then chown postgres "$dir"; fi
    printf %s "$password" >"$dir/password"
    chmod 644 "$dir/password"
    unprivileged "$bin/initdb" -D "$dir/data" -U sharpfaas --auth=scram-sha-256 --pwfile="$dir/password" \
        --locale=C.UTF-8 --encoding=UTF8 --no-sync >"$dir/initdb.log"
}

launch() {
    unprivileged "$bin/pg_ctl" -D "$dir/data" -l "$dir/data/server.log" -w -t 30 -s start -o \
        "-p $1 -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off -c max_connections=200" \
        </dev/null >/dev/null 2>&1
}

start() {
    if [ -f "$dir/port" ]; then
        launch "$(cat "$dir/port")"
    else
        create
        tries=0
        # Whether a port is free shows when it is bound.
        until port=$((20000 + $(od -An -N2 -tu2 /dev/urandom) % 12000)) && launch "$port"; do
            tries=$((tries + 1))
            if [ "$tries" = 10 ]; then
                tail -n 20 "$dir/data/server.log" >&2
                exit 1
            fi
        done
        echo "$port" >"$dir/port"
    fi
    echo "SHARPFAAS_TEST_POSTGRES=postgres://sharpfaas@127.0.0.1:$(cat "$dir/port")/postgres"
    echo "SHARPFAAS_TEST_POSTGRES_PASSWORD=$password"
    echo "SHARPFAAS_TEST_POSTGRES_DIR=$dir"
}

stop() {
    # Held processes can't end.
    signal CONT
    if [ -f "$dir/data/postmaster.pid" ]; then
        unprivileged "$bin/pg_ctl" -D "$dir/data" -w -t 30 -s -m fast stop
    fi
}

signal() {
    if [ -f "$dir/data/postmaster.pid" ]; then
        server=$(head -n 1 "$dir/data/postmaster.pid")
        kill -"$1" "$server" $(ps -o pid= --ppid "$server") 2>/dev/null || true
    fi
}

dir=${2:-}
if [ "$command" = start ] && [ -z "$dir" ]; then dir=$(mktemp -d /tmp/sharpfaas-postgres.XXXXXX); fi
: "${dir:?"usage: $0 $command DIR"}"
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
chmod 755 "$dir"
cd /

case $command in
start) start ;;
stop) stop ;;
restart) stop && start ;;
freeze) signal STOP ;;
thaw) signal CONT ;;
delete) stop && rm -rf "$dir" ;;
*)
    echo "$0: '$command' is not known: start, stop, restart, freeze, thaw or delete" >&2
    exit 2
    ;;
esac
