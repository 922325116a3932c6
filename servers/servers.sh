#!/usr/bin/env bash
# servers.sh up|health|down [WORK] [PORT]: the real servers on this machine, for trying things out by hand.
# Kafka on 9092, Cassandra on 9042, MongoDB on 27017; with PORT on PORT, PORT + 10 and PORT + 20.
# The two ports behind each are the server's own. Tests do not use this: they start their own.
set -euo pipefail
servers=$(cd "$(dirname "$0")" && pwd)
. "$servers/lib.sh"
act=${1:?up, health or down} work=${2:-$FALAJ_SERVERS/run}
kafka=9092 cassandra=9042 mongo=27017
if [ -n "${3-}" ]; then kafka=$3 cassandra=$(($3 + 10)) mongo=$(($3 + 20)); fi

# health NAME PORT: says whether it is up
health() {
    if alive "$work/$1" && "$servers/$1/health.sh" "$2" 2>/dev/null; then
        echo "$1: 127.0.0.1:$2"
    else
        echo "$1: down"
        return 1
    fi
}

case $act in
    up)
        # One after the other: side by side they would only wait for the cores.
        "$servers/kafka/start.sh" "$work/kafka" "$kafka" "$((kafka + 1))"
        health kafka "$kafka"
        mkdir -p "$work/cassandra"
        touch "$work/cassandra/durable"
        "$servers/cassandra/start.sh" "$work/cassandra" "$cassandra" "$((cassandra + 1))" "$((cassandra + 2))"
        health cassandra "$cassandra"
        "$servers/mongo/start.sh" "$work/mongo" "$mongo"
        health mongo "$mongo"
        ;;
    health)
        down=0
        health kafka "$kafka" || down=1
        health cassandra "$cassandra" || down=1
        health mongo "$mongo" || down=1
        exit "$down"
        ;;
    down)
        stop "$work/mongo"
        stop "$work/cassandra"
        stop "$work/kafka"
        ;;
    *) fail "\`$act\` is not a command" "up, health or down" ;;
esac
