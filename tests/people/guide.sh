#!/usr/bin/env bash
# guide.sh WORK: runs the blocks WORK/01.sh, 02.sh, .. of docs/guide/real-servers.md as a person would, one after the
# other in one shell; what each prints is in WORK/01.out, .. Runs in a network and among processes of its own, so that
# every port is free and everything ends with it.
set -euo pipefail
work=${1:?work folder}
ip link set lo up
# The place that the page names, with nothing in it.
run=$HOME/.cache/falaj/servers/run
mkdir -p "$run" "$work/run"
mount --bind "$work/run" "$run"
export XDG_DATA_HOME=$work/data

fail() {
    echo "$1" >&2
    exit 1
}

# A command that fails ends it here, wherever in its block it stands; then what was said is shown.
block=
exec 9>&2
trap 'code=$?; [ "$code" = 0 ] || tail -n +1 "$block" "${block%.sh}.out" "${block%.sh}.err" >&9' EXIT

# until_so WHAT COMMAND..: what a person waits for between two commands
until_so() {
    local what=$1 deadline=$((SECONDS + 120))
    shift
    until "$@" >/dev/null 2>&1; do
        if [ "$SECONDS" -ge "$deadline" ]; then fail "it never happens: $what"; fi
        sleep 0.2
    done
}

# As the justfile has it.
just() {
    if [ "$1 $2" = "servers down" ]; then stop_falaj; fi
    servers/servers.sh "${@:2}"
}

# What serves until Ctrl-C is in a terminal of its own.
falaj() {
    case $1 in
        random-user)
            command falaj "$@" 2>"$work/source.log" &
            until_so "the source serves" grep "random user api: " "$work/source.log"
            ;;
        run)
            command falaj "$@" 2>"$work/falaj.log" &
            running=$!
            until_so "the page is there" grep "dashboard: http://127.0.0.1:8050" "$work/falaj.log"
            for sink in local cassandra mongodb; do until_so "$sink has rows" has_rows "$sink"; done
            ;;
        *) command falaj "$@" ;;
    esac
}
has_rows() { curl -s http://127.0.0.1:8050/metrics | grep "falaj_sink_rows_total{[^}]*sink=\"$1\"[^}]*} [1-9]"; }
is_ready() { curl -sf http://127.0.0.1:8050/readyz; }
is_unready() { curl -s http://127.0.0.1:8050/readyz | grep cassandra; }

# Ctrl-C
stop_falaj() {
    kill -TERM "$running"
    wait "$running" || fail "falaj ended with $?"
}

for block in "$work"/[0-9][0-9].sh; do
    # shellcheck disable=SC1090
    . "$block" >"${block%.sh}.out" 2>"${block%.sh}.err"
    case $(<"$block") in servers/stop.sh*) until_so "the page says that Cassandra is down" is_unready ;; esac
done
