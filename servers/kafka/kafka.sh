# Sourced by the scripts beside it: the jars, and what every JVM gets.

kafka_home=$FALAJ_SERVERS/kafka-$(digest "$kafka/pom.xml")

# C1 alone and the serial collector: short runs on few cores.
jvm=(-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto -cp "$kafka_home/jars/*"
    -Dorg.slf4j.simpleLogger.showDateTime=true)

# kafka_jars: fetched from Maven Central once per pom.xml
kafka_jars() { once "$kafka_home/jars" fetch_jars; }
fetch_jars() {
    command -v mvn >/dev/null || fail "Maven is missing" "install the package maven"
    # Read from a copy: Maven writes beside its pom.
    cp "$kafka/pom.xml" .
    mvn -B -q dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=. >mvn.log 2>&1 ||
        { tail -n 20 mvn.log >&2 && return 1; }
}

# kafka_format DATA CONFIG ARGS.. Kafka's own tool makes the data folder
kafka_format() {
    java -Xmx128m "${jvm[@]}" -Dorg.slf4j.simpleLogger.defaultLogLevel=warn kafka.tools.StorageTool format \
        --ignore-formatted --cluster-id "$1" --config "$2" "${@:3}" >>format.log 2>&1 ||
        { tail -n 20 format.log >&2 && return 1; }
}
