#!/usr/bin/env bash
# roles.sh FOLDER: keyspace and role of falaj in a Cassandra that asks for a login. Harmless when run again.
# FOLDER has the passwords of `admin` and `falaj`; CQLSH_HOST and CQLSH_PORT say where.
set -euo pipefail
folder=${1:?folder}
admin=$(<"$folder/admin") falaj=$(<"$folder/falaj")

cql() { cqlsh --username "$1" --password "$2"; }

# Cassandra makes its first superuser some seconds after it answers. Ours takes over from it.
for _ in {1..60}; do
    if cql admin "$admin" <<<'SHOW VERSION' >/dev/null 2>&1; then break; fi
    cql cassandra cassandra 2>/dev/null <<CQL || sleep 1
CREATE ROLE IF NOT EXISTS admin WITH SUPERUSER = true AND LOGIN = true AND PASSWORD = '$admin';
CQL
done
cql admin "$admin" <<CQL
ALTER ROLE cassandra WITH SUPERUSER = false AND LOGIN = false;
CREATE KEYSPACE IF NOT EXISTS falaj WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1};
CREATE ROLE IF NOT EXISTS falaj WITH LOGIN = true AND PASSWORD = '$falaj';
GRANT CREATE ON KEYSPACE falaj TO falaj;
GRANT ALTER ON KEYSPACE falaj TO falaj;
GRANT DROP ON KEYSPACE falaj TO falaj;
GRANT SELECT ON KEYSPACE falaj TO falaj;
GRANT MODIFY ON KEYSPACE falaj TO falaj;
GRANT SELECT ON KEYSPACE system_views TO falaj;
CQL
