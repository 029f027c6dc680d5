#!/bin/bash
# Private FTP servers for tests: Debian's vsftpd, pure-ftpd and proftpd on free ports of 127.0.0.1, each
# with plain FTP and, as NAME-tls, with TLS on both channels and a certificate of a CA made for it.
#
#   ftp.sh start DIR [NAME…]     makes and starts servers below DIR (none named: all of them); those that
#                                are there already are started again, on their old ports. Prints for each
#                                  SHARPFAAS_TEST_FTP_VSFTPD=ftp://user@127.0.0.1:PORT/files
#                                  SHARPFAAS_TEST_FTP_VSFTPD_PASSWORD=…
#                                  SHARPFAAS_TEST_FTP_VSFTPD_ROOT=where that folder is
#                                  SHARPFAAS_TEST_FTP_VSFTPD_TLS_CA=the CA's certificate (NAME-tls)
#   ftp.sh stop DIR [NAME…]      kills them with all their connections, as a crash does
#   ftp.sh restart DIR [NAME…]   both
#   ftp.sh freeze DIR [NAME…]    holds all their processes, so that they are there and do not answer
#   ftp.sh thaw DIR [NAME…]      lets them go on
#   ftp.sh delete DIR            kills them and removes DIR
#
# The packages exclude one another when installed: they are downloaded and unpacked side by side in
# SHARPFAAS_SERVICES_DIR (default ~/.cache/sharpfaas-services). Must run as root: the servers change to
# the user daemon.
set -euo pipefail

all=(vsftpd vsftpd-tls pure-ftpd pure-ftpd-tls proftpd proftpd-tls)
password=sharpfaas-test
usage="usage: $0 start|stop|restart|freeze|thaw|delete DIR [NAME…]"
command=${1:?"$usage"}
dir=${2:?"$usage"}
shift 2
cache=${SHARPFAAS_SERVICES_DIR:-$HOME/.cache/sharpfaas-services}/ftp
packages=$cache/packages

fetch() {
    mkdir -p "$cache"
    exec 9>"$cache/lock"
    flock 9
    if [ ! -e "$cache/whole" ]; then
        local wanted=(vsftpd pure-ftpd pure-ftpd-common proftpd-core proftpd-mod-crypto) package
        if ! apt-cache show "${wanted[@]}" >/dev/null 2>&1; then apt-get update >&2; fi
        # With the libraries that they stand on and that are not installed.
        for package in $(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks \
            --no-replaces --no-enhances "${wanted[@]}" | grep '^lib' | sort -u); do
            if ! dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed'; then wanted+=("$package"); fi
        done
        rm -rf "$packages" "$cache/archives"
        mkdir -p "$packages" "$cache/archives"
        (cd "$cache/archives" && apt-get -o APT::Sandbox::User=root download "${wanted[@]}") >&2
        for package in "$cache"/archives/*.deb; do
            dpkg -x "$package" "$packages/$(basename "${package%%_*}")"
        done
        rm -r "$cache/archives"
        touch "$cache/whole"
    fi
    exec 9>&-
}

# A CA, and a server's certificate signed by it.
certify() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj "/CN=sharpfaas test CA" \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign -keyout "$1/ca.key" -out "$1/ca.pem"
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=127.0.0.1" -keyout "$1/tls.key" \
        -out "$1/tls.csr"
    printf 'subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\n' >"$1/tls.ext"
    openssl x509 -req -in "$1/tls.csr" -CA "$1/ca.pem" -CAkey "$1/ca.key" -CAcreateserial -days 3650 \
        -extfile "$1/tls.ext" -out "$1/tls.pem"
    cat "$1/tls.pem" "$1/tls.key" >"$1/both.pem"
    chmod 600 "$1"/*.key "$1/both.pem"
} 2>/dev/null

configure_vsftpd() {
    mkdir -p "$1/empty"
    cat <<END
listen=YES
listen_address=127.0.0.1
listen_port=$2
background=NO
anonymous_enable=YES
local_enable=NO
write_enable=YES
anon_root=$1/root
ftp_username=daemon
nopriv_user=daemon
secure_chroot_dir=$1/empty
anon_upload_enable=YES
anon_mkdir_write_enable=YES
anon_other_write_enable=YES
anon_world_readable_only=NO
anon_umask=022
seccomp_sandbox=NO
max_clients=0
END
    # Each data connection must resume the TLS session of its control connection.
    if [ "$3" = tls ]; then
        cat <<END
ssl_enable=YES
allow_anon_ssl=YES
force_anon_logins_ssl=YES
force_anon_data_ssl=YES
require_ssl_reuse=YES
ssl_ciphers=HIGH
rsa_cert_file=$1/tls.pem
rsa_private_key_file=$1/tls.key
END
    fi
}

configure_proftpd() {
    echo "sharpfaas:$(openssl passwd -5 "$password"):$(id -u daemon):$(id -g daemon)::/:/bin/false" >"$1/users"
    chmod 600 "$1/users"
    cat <<END
ServerType standalone
DefaultAddress 127.0.0.1
Port $2
UseIPv6 off
UseReverseDNS off
User daemon
Group daemon
ModulePath $packages/proftpd-core/usr/lib/proftpd
PidFile $1/proftpd.pid
ScoreboardFile $1/scoreboard
SystemLog $1/proftpd.log
WtmpLog off
DelayEngine off
AuthOrder mod_auth_file.c
AuthUserFile $1/users
RequireValidShell off
DefaultRoot $1/root
AllowOverwrite on
MaxInstances 200
END
    if [ "$3" = tls ]; then
        cat <<END
ModulePath $packages/proftpd-mod-crypto/usr/lib/proftpd
LoadModule mod_tls.c
TLSEngine on
TLSRequired on
TLSLog $1/tls.log
TLSECCertificateFile $1/tls.pem
TLSECCertificateKeyFile $1/tls.key
END
    fi
}

# Its own tool would make hashes that take seconds to check.
prepare_pure_ftpd() {
    echo "sharpfaas:$(openssl passwd -5 "$password"):$(id -u daemon):$(id -g daemon)::$1/root/./::::::::::::" >"$1/users"
    chmod 600 "$1/users"
    "$packages/pure-ftpd/usr/bin/pure-pw" mkdb "$1/users.pdb" -f "$1/users"
}

# Becomes the server; its arguments: name, folder, port.
run() {
    local name=$1 at=$2 port=$3 tls=plain
    case $name in *-tls) tls=tls ;; esac
    LD_LIBRARY_PATH=$(find "$packages" -type d -path '*/usr/lib/*-linux-gnu' -printf '%p:')
    export LD_LIBRARY_PATH
    cd "$at"
    case $name in
    vsftpd*)
        configure_vsftpd "$at" "$port" "$tls" >"$at/config"
        exec "$packages/vsftpd/usr/sbin/vsftpd" "$at/config"
        ;;
    proftpd*)
        configure_proftpd "$at" "$port" "$tls" >"$at/config"
        exec "$packages/proftpd-core/usr/sbin/proftpd" -n -q -c "$at/config"
        ;;
    pure-ftpd*)
        if [ ! -e "$at/users.pdb" ]; then prepare_pure_ftpd "$at"; fi
        local options=(-S "127.0.0.1,$port" -l "puredb:$at/users.pdb" -E -A -H -u 1 -c 200 -C 200 -g "$at/pure-ftpd.pid")
        if [ "$tls" = tls ]; then options+=(-Y 3 -2 "$at/both.pem"); fi
        exec "$packages/pure-ftpd/usr/sbin/pure-ftpd" "${options[@]}"
        ;;
    esac
}

# Waits for the greeting; fails when the server ends before.
greeted() {
    local line
    for _ in $(seq 200); do
        if ! kill -0 "$2" 2>/dev/null; then return 1; fi
        if { exec 3<>"/dev/tcp/127.0.0.1/$1"; } 2>/dev/null; then
            if read -r -t 10 line <&3 && [[ $line == 220* ]]; then
                exec 3>&-
                return 0
            fi
            exec 3>&-
        fi
        sleep 0.05
    done
    return 1
}

launch() {
    local name=$1 at=$2 port=$3
    # A process group of its own, so that all its processes can be reached.
    setsid bash "$self" run "$at" "$name" "$port" >>"$at/output.log" 2>&1 </dev/null &
    echo $! >"$at/pid"
    if greeted "$port" "$!"; then return 0; fi
    kill -KILL "$!" 2>/dev/null || true
    stop "$name"
    return 1
}

start() {
    local name=$1 at=$dir/$1 port tries=0 variable
    if [ -e "$at/pid" ]; then stop "$name"; fi
    if [ -e "$at/port" ]; then
        launch "$name" "$at" "$(cat "$at/port")" || fail "$at"
    else
        # vsftpd refuses a root that can be written to.
        mkdir -p "$at/root/files"
        chown daemon "$at/root/files"
        case $name in *-tls) certify "$at" ;; esac
        # Whether a port is free shows when it is bound.
        until port=$((20000 + SRANDOM % 12000)) && launch "$name" "$at" "$port"; do
            tries=$((tries + 1))
            if [ "$tries" = 5 ]; then fail "$at"; fi
        done
        echo "$port" >"$at/port"
    fi
    variable=SHARPFAAS_TEST_FTP_$(tr a-z- A-Z_ <<<"$name")
    local scheme=ftp user=sharpfaas
    case $name in *-tls) scheme=ftps ;; esac
    case $name in vsftpd*) user=anonymous ;; esac
    echo "$variable=$scheme://$user@127.0.0.1:$(cat "$at/port")/files"
    echo "${variable}_PASSWORD=$password"
    echo "${variable}_ROOT=$at/root/files"
    if [ "$scheme" = ftps ]; then echo "${variable}_CA=$at/ca.pem"; fi
}

fail() {
    echo "$0: the server in $1 does not start:" >&2
    tail -n 20 "$1"/*.log >&2
    exit 1
}

# The processes of a server that is held: its own and those it made, which may have sessions of their own.
# Only such that run a program of ours: a number that meanwhile is another's is left alone.
processes() {
    local found process
    found=$(cat "$dir/$1/pid" 2>/dev/null) || return 0
    found=$(ps -e -o pid= -o ppid= -o sid= | awk -v "root=$found" '
        { parent[$1] = $2; session[$1] = $3 }
        END { for (p in parent) { q = p; while (q > 1 && q != root && session[q] != root) q = parent[q]; if (q > 1) print p } }')
    for process in $found; do
        if [[ $(readlink "/proc/$process/exe") == "$packages"/* ]]; then echo "$process"; fi
    done
}

signal() {
    local process
    for process in $(processes "$2"); do kill "-$1" "$process" 2>/dev/null || true; done
}

# Until none is left that was not reached yet: one that is being held may just have made another.
freeze() {
    local before='' now
    now=$(processes "$1")
    while [ "$now" != "$before" ]; do
        signal STOP "$1"
        before=$now
        now=$(processes "$1")
    done
}

stop() {
    local process list
    freeze "$1"
    list=$(processes "$1")
    for process in $list; do kill -KILL "$process" 2>/dev/null || true; done
    for process in $list; do
        while [[ $(readlink "/proc/$process/exe") == "$packages"/* ]]; do sleep 0.01; done
    done
    rm -f "$dir/$1/pid"
}

self=$(realpath "$0")
mkdir -p "$dir"
dir=$(realpath "$dir")
if [ "$command" = run ]; then run "$1" "$dir" "$2"; fi
if [ "$(id -u)" != 0 ]; then
    echo "$0: must run as root" >&2
    exit 1
fi
names=("$@")
if [ $# = 0 ]; then names=("${all[@]}"); fi
for name in "${names[@]}"; do
    if [[ " ${all[*]} " != *" $name "* ]]; then
        echo "$0: '$name' is not known: ${all[*]}" >&2
        exit 2
    fi
done
if [ "$command" = start ]; then fetch; fi
for name in "${names[@]}"; do
    case $command in
    start) start "$name" ;;
    stop | delete) stop "$name" ;;
    restart) stop "$name" && start "$name" ;;
    freeze) freeze "$name" ;;
    thaw) signal CONT "$name" ;;
    *)
        echo "$usage" >&2
        exit 2
        ;;
    esac
done
if [ "$command" = delete ]; then rm -rf "$dir"; fi
