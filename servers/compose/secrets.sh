#!/usr/bin/env bash
# secrets.sh FOLDER: makes the passwords of the servers in compose.yaml where there are none yet.
# Each folder in FOLDER is a volume that one server alone has: who may open the volume may read what is in it.
set -euo pipefail
folder=${1:?folder}
umask 022

# A word of 32 characters that needs quoting nowhere.
word() { head -c 24 /dev/urandom | base64 | tr '+/' '-_'; }

# put FILE TEXT [OWNER]: whole or not at all, and never over another one; with OWNER it is theirs alone
put() {
    if [ -e "$folder/$1" ]; then return; fi
    printf '%s\n' "$2" >"$folder/$1.new"
    if [ -n "${3-}" ]; then
        chmod 0400 "$folder/$1.new"
        # Elsewhere than in a container there is no such user, and nobody may give files away.
        if [ "$(id -u)" = 0 ]; then chown "$3" "$folder/$1.new"; fi
    fi
    mv "$folder/$1.new" "$folder/$1"
}

# shared PATH..: one word in several volumes; the first one counts
shared() {
    local first=$1 path
    put "$first" "$(word)"
    for path in "${@:2}"; do put "$path" "$(<"$folder/$first")"; done
}

shared falaj/kafka kafka/falaj
put kafka/jaas.conf "KafkaServer {
    org.apache.kafka.common.security.plain.PlainLoginModule required
    user_falaj=\"$(<"$folder/kafka/falaj")\";
};"
shared falaj/cassandra cassandra/falaj
put cassandra/admin "$(word)"
shared falaj/mongo mongo/falaj
put mongo/admin "$(word)"
# mongod insists on a key that nobody else may read; 999 is its user in its image.
put mongo/keyfile "$(word)" 999:999
