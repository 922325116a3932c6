# Sourced by the scripts beside it: the jars, and what every JVM gets.

cassandra_home=$FALAJ_SERVERS/cassandra-$(digest "$cassandra/pom.xml")

# C1 alone and the serial collector: short runs on few cores.
jvm=(-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto -XX:-UsePerfData -cp "$cassandra_home/jars/*"
    -Djava.awt.headless=true -Dcom.sun.jndi.rmiURLParsing=legacy)

# Cassandra reaches into parts of the JDK that are closed since Java 16.
for package in java.base/jdk.internal.misc java.base/java.lang.ref java.base/jdk.internal.ref java.sql/java.sql \
    java.management.rmi/com.sun.jmx.remote.internal.rmi java.rmi/sun.rmi.registry java.rmi/sun.rmi.server \
    java.rmi/sun.rmi.transport.tcp jdk.attach/sun.tools.attach jdk.unsupported/sun.misc; do
    jvm+=("--add-exports=$package=ALL-UNNAMED")
done
for package in java.base/java.io java.base/java.lang java.base/java.lang.module java.base/java.lang.reflect \
    java.base/java.math java.base/java.net java.base/java.nio java.base/java.util java.base/java.util.concurrent \
    java.base/java.util.concurrent.atomic java.base/jdk.internal.loader java.base/jdk.internal.math \
    java.base/jdk.internal.module java.base/jdk.internal.ref java.base/jdk.internal.reflect \
    java.base/jdk.internal.util.jar java.base/sun.nio.ch java.rmi/sun.rmi.transport.tcp \
    jdk.management/com.sun.management.internal; do
    jvm+=("--add-opens=$package=ALL-UNNAMED")
done

# cassandra_jars: fetched from Maven Central once per pom.xml
cassandra_jars() { once "$cassandra_home/jars" fetch_jars; }
fetch_jars() {
    command -v mvn >/dev/null || fail "Maven is missing" "install the package maven"
    # Read from a copy: Maven writes beside its pom.
    cp "$cassandra/pom.xml" .
    mvn -B -q dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=. >mvn.log 2>&1 ||
        { tail -n 20 mvn.log >&2 && return 1; }
}
