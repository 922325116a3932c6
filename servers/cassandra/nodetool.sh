#!/usr/bin/env bash
# cassandra/nodetool.sh JMX_PORT ARGS..: Cassandra's own tool for a node on this machine, for example
#   cassandra/nodetool.sh 9044 flush falaj
set -euo pipefail
cassandra=$(cd "$(dirname "$0")" && pwd)
. "$cassandra/../lib.sh"
. "$cassandra/cassandra.sh"
port=${1:?JMX port}
shift
cassandra_jars
# It keeps a history in the home folder.
exec java -Xmx128m "${jvm[@]}" "-Duser.home=$cassandra_home" org.apache.cassandra.tools.NodeTool -h 127.0.0.1 -p "$port" "$@"
