#!/usr/bin/env bash
# kafka/tool.sh CLASS ARGS..: one of Kafka's command-line tools, for example
#   kafka/tool.sh TopicCommand --bootstrap-server 127.0.0.1:9092 --list
# Without a dot, CLASS is looked for where Kafka keeps its tools. CLASSPATH is searched before Kafka's jars.
set -euo pipefail
kafka=$(cd "$(dirname "$0")" && pwd)
. "$kafka/../lib.sh"
. "$kafka/kafka.sh"
class=${1:?class}
shift
case $class in
    ConsoleConsumer) class=org.apache.kafka.tools.consumer.$class ;;
    ConsumerGroupCommand) class=org.apache.kafka.tools.consumer.group.$class ;;
    ConfigCommand) class=kafka.admin.$class ;;
    *.*) ;;
    *) class=org.apache.kafka.tools.$class ;;
esac
kafka_jars
command=(java -Xmx128m "${jvm[@]}" -Dorg.slf4j.simpleLogger.defaultLogLevel=error)
if [ -n "${CLASSPATH-}" ]; then
    exec "${command[@]}" -cp "$CLASSPATH:$kafka_home/jars/*" "$class" "$@"
fi
# The first tool leaves its loaded classes behind, and every later one starts in half the time.
archive=$kafka_home/tools-$(digest <(java -version 2>&1)).jsa
if [ -e "$archive" ]; then
    exec "${command[@]}" -XX:SharedArchiveFile="$archive" -Xlog:cds=off -Xlog:cds+dynamic=off "$class" "$@"
fi
status=0
"${command[@]}" -XX:ArchiveClassesAtExit="$archive.$$" -Xlog:cds=off -Xlog:cds+dynamic=off "$class" "$@" || status=$?
if [ -e "$archive.$$" ]; then mv -f "$archive.$$" "$archive"; fi
exit "$status"
