#!/usr/bin/env bash
# kafka/compile.sh SOURCE CLASSES: compiles a Java file against Kafka's jars; prints the folder of classes.
set -euo pipefail
kafka=$(cd "$(dirname "$0")" && pwd)
. "$kafka/../lib.sh"
. "$kafka/kafka.sh"
source=${1:?Java file} classes=${2:?folder of classes}
kafka_jars
javac -cp "$kafka_home/jars/*" -Xlint:all -Werror -d "$classes" "$source"
echo "$classes"
