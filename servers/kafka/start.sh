#!/usr/bin/env bash
# kafka/start.sh WORK PORT CONTROLLER_PORT: a real Apache Kafka (KRaft, broker and controller in one process) on 127.0.0.1.
# Does nothing where it runs already; goes on with the data that WORK holds, after `stop.sh WORK KILL` too.
#
# In WORK, made by the caller where wanted:
#   extra.properties   further server properties; they win
#   tls/               server.pem (PKCS #8 key and chain) and ca.pem: TLS listeners
#   users              NAME PASSWORD a line: SASL listeners with PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512
# Environment: SSL_PORT, SASL_PORT, SASL_SSL_PORT (with tls, users, both), KAFKA_HEAP (default 256m), FALAJ_SERVERS (cache),
# KAFKA_SHIPPED=1 (JVM and threads as Kafka is shipped with them, for measuring; without it a start is fast and small)
set -euo pipefail
kafka=$(cd "$(dirname "$0")" && pwd)
. "$kafka/../lib.sh"
. "$kafka/kafka.sh"
work=${1:?work folder} port=${2:?port} controller=${3:?controller port}
mkdir -p "$work"
work=$(cd "$work" && pwd)
exec 8>"$work/starting"
flock 8
kafka_jars

if alive "$work"; then
    if "$kafka/health.sh" "$port" 2>/dev/null; then exit; fi
    stop "$work"
fi
free_ports "$port" "$controller" ${SSL_PORT-} ${SASL_PORT-} ${SASL_SSL_PORT-}

listeners="PLAINTEXT://127.0.0.1:$port${SSL_PORT:+,SSL://127.0.0.1:$SSL_PORT}${SASL_PORT:+,SASL_PLAINTEXT://127.0.0.1:$SASL_PORT}${SASL_SSL_PORT:+,SASL_SSL://127.0.0.1:$SASL_SSL_PORT}"
properties() {
    cat <<P
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
controller.listener.names=CONTROLLER
listeners=$listeners,CONTROLLER://127.0.0.1:$controller
advertised.listeners=$listeners
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT
log.dirs=$work/data
auto.create.topics.enable=false
# One node and small internal topics: the first group or transaction is ready in milliseconds.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
# A restart after kill -9 waits until the dead broker's session has ended.
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=500
P
    if [ -z "${KAFKA_SHIPPED-}" ]; then
        cat <<P
num.network.threads=1
num.io.threads=2
num.recovery.threads.per.data.dir=1
background.threads=2
# The default of 128 MiB does not fit a small heap.
log.cleaner.dedupe.buffer.size=8388608
log.cleaner.io.buffer.size=131072
P
    fi
    if [ -d "$work/tls" ]; then
        cat <<P
ssl.keystore.type=PEM
ssl.keystore.location=$work/tls/server.pem
ssl.truststore.type=PEM
ssl.truststore.location=$work/tls/ca.pem
P
    fi
    if [ -f "$work/users" ]; then
        echo "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512"
        local listener plain="org.apache.kafka.common.security.plain.PlainLoginModule required" name password
        while read -r name password; do plain+=" user_$name=\"$password\""; done <"$work/users"
        for listener in sasl_plaintext sasl_ssl; do
            echo "listener.name.$listener.plain.sasl.jaas.config=$plain;"
            for name in scram-sha-256 scram-sha-512; do
                echo "listener.name.$listener.$name.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;"
            done
        done
    fi
    if [ -f "$work/extra.properties" ]; then cat "$work/extra.properties"; fi
}
properties >"$work/server.properties"

# A data folder as Kafka's tool makes it: a JVM's start dearer than a copy, so it is made once and
# each broker gets a copy with a cluster id of its own.
template() {
    sed "s|^log.dirs=.*|log.dirs=$PWD/data|" "$work/server.properties" >server.properties
    kafka_format "$cluster" server.properties
}
if [ ! -f "$work/data/meta.properties" ]; then
    cluster=$(head -c 16 /dev/urandom | base64 | tr '+/' 'ab' | cut -c1-22)
    if [ -f "$work/users" ]; then
        users=()
        while read -r name password; do
            for hash in 256 512; do users+=(--add-scram "SCRAM-SHA-$hash=[name=$name,password=$password]"); done
        done <"$work/users"
        (cd "$work" && kafka_format "$cluster" server.properties "${users[@]}")
    else
        once "$kafka_home/formatted" template
        cp -r "$kafka_home/formatted/data" "$work/data"
        sed -i "s|^cluster.id=.*|cluster.id=$cluster|" "$work/data/meta.properties"
    fi
fi
if [ -n "${KAFKA_SHIPPED-}" ]; then
    # What kafka-server-start.sh and kafka-run-class.sh say.
    jvm=(-Xms1g -Xmx1g -server -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35
        -XX:+ExplicitGCInvokesConcurrent -Dorg.slf4j.simpleLogger.showDateTime=true -cp "$kafka_home/jars/*")
else
    jvm=(-Xms64m "-Xmx${KAFKA_HEAP:-256m}" "${jvm[@]}")
fi
launch "$work" java "${jvm[@]}" -Dorg.slf4j.simpleLogger.defaultLogLevel=warn \
    kafka.Kafka "$work/server.properties"
wait_ready "$work" 120 "$kafka/health.sh" "$port"
