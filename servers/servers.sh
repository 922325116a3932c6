#!/usr/bin/env bash
# servers.sh up|health|down [WORK] [PORT]: the real servers on this machine, for trying things out by hand.
# Kafka listens on PORT, its controller on PORT + 1. Tests do not use this: they start their own.
set -euo pipefail
servers=$(cd "$(dirname "$0")" && pwd)
. "$servers/lib.sh"
act=${1:?up, health or down} work=${2:-$FALAJ_SERVERS/run} port=${3:-9092}
case $act in
    up)
        "$servers/kafka/start.sh" "$work/kafka" "$port" "$((port + 1))"
        echo "kafka: 127.0.0.1:$port"
        ;;
    health)
        if alive "$work/kafka" && "$servers/kafka/health.sh" "$port" 2>/dev/null; then
            echo "kafka: 127.0.0.1:$port"
        else
            echo "kafka: down"
            exit 1
        fi
        ;;
    down) stop "$work/kafka" ;;
    *) fail "\`$act\` is not a command" "up, health or down" ;;
esac
