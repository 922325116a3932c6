#!/usr/bin/env bash
# cassandra/start.sh WORK PORT STORAGE_PORT JMX_PORT: a real Apache Cassandra of one node on 127.0.0.1.
# Does nothing where it runs already; goes on with the data that WORK holds, after `stop.sh WORK KILL` too.
#
# In WORK, made by the caller where wanted:
#   extra.yaml   further settings of cassandra.yaml; they win
#   tls/         server.pem (PKCS #8 key and chain) and ca.pem: the port takes TLS as well as plain connections
#   password     an empty file: clients log in (first as cassandra, password cassandra) and need rights
#   durable      an empty file: a row is on the disk before it is acknowledged, and not up to a second later
# Environment: CASSANDRA_HEAP (default 512m), FALAJ_SERVERS (cache)
set -euo pipefail
cassandra=$(cd "$(dirname "$0")" && pwd)
. "$cassandra/../lib.sh"
. "$cassandra/cassandra.sh"
work=${1:?work folder} port=${2:?port} storage=${3:?storage port} jmx=${4:?JMX port}
mkdir -p "$work/tmp"
work=$(cd "$work" && pwd)
exec 8>"$work/starting"
flock 8
cassandra_jars

login=()
if [ -f "$work/password" ]; then login=(cassandra cassandra); fi
if alive "$work"; then
    if "$cassandra/health.sh" "$port" "${login[@]}" 2>/dev/null; then exit; fi
    stop "$work"
fi
free_ports "$port" "$storage" "$jmx"

settings() {
    cat <<S
cluster_name: falaj
num_tokens: 1
initial_token: 0
auto_bootstrap: false
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
endpoint_snitch: SimpleSnitch
seed_provider: [{class_name: org.apache.cassandra.locator.SimpleSeedProvider, parameters: [{seeds: "127.0.0.1:$storage"}]}]
listen_address: 127.0.0.1
rpc_address: 127.0.0.1
storage_port: $storage
native_transport_port: $port
data_file_directories: ["$work/data"]
commitlog_directory: $work/commitlog
saved_caches_directory: $work/saved_caches
hints_directory: $work/hints
cdc_raw_directory: $work/cdc_raw
commitlog_segment_size: 16MiB
commitlog_total_space: 256MiB
# Rights are looked up at each request unless they are kept for a moment: change them, wait as long.
roles_validity: 250ms
permissions_validity: 250ms
credentials_validity: 250ms
# A small node. Writers wait for the disk together, so there are more of them than cores.
memtable_heap_space: 64MiB
memtable_offheap_space: 64MiB
file_cache_enabled: false
networking_cache_size: 16MiB
key_cache_size: 4MiB
counter_cache_size: 0MiB
row_cache_size: 0MiB
prepared_statements_cache_size: 8MiB
concurrent_reads: 8
concurrent_writes: 128
concurrent_counter_writes: 2
concurrent_compactors: 1
memtable_flush_writers: 1
native_transport_max_threads: 128
disk_optimization_strategy: ssd
auto_snapshot: false
trickle_fsync: false
S
    if [ -f "$work/durable" ]; then
        echo "commitlog_sync: batch"
    else
        echo "commitlog_sync: periodic"
        echo "commitlog_sync_period: 1000ms"
    fi
    if [ -f "$work/password" ]; then
        cat <<S
authenticator: PasswordAuthenticator
authorizer: CassandraAuthorizer
role_manager: CassandraRoleManager
S
    fi
    if [ -d "$work/tls" ]; then
        cat <<S
client_encryption_options:
  enabled: true
  optional: true
  ssl_context_factory: {class_name: org.apache.cassandra.security.PEMBasedSslContextFactory}
  keystore: $work/tls/server.pem
  truststore: $work/tls/ca.pem
S
    fi
    if [ -f "$work/extra.yaml" ]; then cat "$work/extra.yaml"; fi
}
settings >"$work/cassandra.yaml"
cat >"$work/logback.xml" <<'X'
<configuration>
  <appender name="OUT" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%-5level %date{HH:mm:ss.SSS} [%thread] %logger{0} %msg%n</pattern></encoder>
  </appender>
  <root level="WARN"><appender-ref ref="OUT"/></root>
</configuration>
X

options=("-javaagent:$(echo "$cassandra_home"/jars/jamm-*.jar)"
    -Xms128m "-Xmx${CASSANDRA_HEAP:-512m}" -Xss512k -XX:MaxDirectMemorySize=256m -XX:+ExitOnOutOfMemoryError
    "-Dcassandra.config=file://$work/cassandra.yaml" "-Dcassandra.storagedir=$work" "-Dcassandra.logdir=$work"
    "-Dlogback.configurationFile=$work/logback.xml" "-Dcassandra.jmx.local.port=$jmx"
    "-Djava.io.tmpdir=$work/tmp" "-Djna.tmpdir=$work/tmp" -Djna.nosys=true -Djdk.attach.allowAttachSelf=true
    -Dcassandra-foreground=yes -Dcassandra.available_processors=2
    # One node: nobody to gossip with and nobody to wait for.
    -Dcassandra.skip_wait_for_gossip_to_settle=0 -Dcassandra.ring_delay_ms=1 -Dcassandra.load_ring_state=false
    -Dcassandra.superuser_setup_delay_ms=0 -Dcassandra.consistent.rangemovement=false)
launch "$work" java "${jvm[@]}" "${options[@]}" org.apache.cassandra.service.CassandraDaemon
wait_ready "$work" 240 "$cassandra/health.sh" "$port" "${login[@]}"
