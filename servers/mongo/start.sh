#!/usr/bin/env bash
# mongo/start.sh WORK PORT: a server that speaks MongoDB's protocol on 127.0.0.1, as a replica set of one member.
# Does nothing where it runs already; goes on with the data that WORK holds, after `stop.sh WORK KILL` too.
# A real mongod where there is one: FALAJ_MONGOD, or `mongod` on the path. Else SecantusDB from PyPI, which is
# compatible with MongoDB, and is not MongoDB. WORK/flavour says which.
#
# In WORK, made by the caller where wanted:
#   tls/    server.pem, server.key, server.crt and ca.pem: TLS
#   users   NAME PASSWORD a line, the first time: who may log in, as root; then nobody else may do anything
# Environment: MONGO_SET (members of a replica set, HOST:PORT,..; the caller initiates it), FALAJ_SERVERS (cache)
set -euo pipefail
mongo=$(cd "$(dirname "$0")" && pwd)
. "$mongo/../lib.sh"
work=${1:?work folder} port=${2:?port}
mkdir -p "$work/data"
work=$(cd "$work" && pwd)
exec 8>"$work/starting"
flock 8
mongod=${FALAJ_MONGOD:-$(command -v mongod || true)}
venv=$("$mongo/venv.sh")

ready() {
    if [ -d "$work/tls" ]; then
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null
    else
        "$mongo/health.sh" "$port" 2>/dev/null
    fi
}
if alive "$work"; then
    if ready; then exit; fi
    stop "$work"
fi
free_ports "$port"

if [ -n "$mongod" ]; then
    "$mongod" --version | sed -n 's/^db version v/MongoDB /p' >"$work/flavour"
    command=("$mongod" --dbpath "$work/data" --port "$port" --bind_ip 127.0.0.1 --nounixsocket --replSet falaj
        # Small, and rows expire within a second or two, not a minute.
        --wiredTigerCacheSizeGB 0.25 --oplogSize 128 --setParameter ttlMonitorSleepSecs=1)
    if [ -f "$work/users" ]; then
        # A replica set with logins needs a key for its members, too.
        if [ ! -f "$work/members.key" ]; then head -c 96 /dev/urandom | base64 -w0 >"$work/members.key"; fi
        chmod 600 "$work/members.key"
        command+=(--keyFile "$work/members.key")
    fi
    if [ -d "$work/tls" ]; then
        command+=(--tlsMode requireTLS --tlsCertificateKeyFile "$work/tls/server.pem" --tlsCAFile "$work/tls/ca.pem"
            --tlsAllowConnectionsWithoutCertificates)
    fi
    launch "$work" "${command[@]}"
    wait_ready "$work" 180 ready
    if [ -z "${MONGO_SET-}" ]; then "$venv/bin/python" "$mongo/initiate.py" "$work" "127.0.0.1:$port"; fi
else
    "$venv/bin/python" -c 'import secantus; print("SecantusDB", secantus.__version__)' >"$work/flavour"
    launch "$work" "$venv/bin/python" "$mongo/serve.py" "$work" "$port"
    wait_ready "$work" 180 ready
fi
