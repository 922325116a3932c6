"""everything.py STORE..: prints every row of every table of each store, one JSON object a line.

A STORE is `cassandra://HOST:PORT/..` or `mongodb://..`; its system tables and databases come as well.
"""

import base64
import json
import sys
from urllib.parse import urlsplit, urlunsplit


def text(value):
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace") + " " + base64.b64encode(value).decode()
    return str(value)


def say(store, place, row):
    print(json.dumps({"store": store, "place": place, "row": row}, default=text))


def cassandra(url):
    from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
    from cassandra.query import dict_factory

    profile = ExecutionProfile(row_factory=dict_factory, request_timeout=120)
    parts = urlsplit(url)
    cluster = Cluster([parts.hostname], port=parts.port, execution_profiles={EXEC_PROFILE_DEFAULT: profile})
    session = cluster.connect()
    for table in list(session.execute("SELECT keyspace_name, table_name FROM system_schema.tables")):
        keyspace, name = table["keyspace_name"], table["table_name"]
        # As JSON: some system tables hold times that Python has no dates for.
        for row in session.execute(f'SELECT JSON * FROM "{keyspace}"."{name}"'):
            columns = json.loads(row["[json]"])
            say("cassandra", f"{keyspace}.{name}", {column.strip('"'): columns[column] for column in columns})
    cluster.shutdown()


def mongodb(url):
    from pymongo import MongoClient

    client = MongoClient(urlunsplit(urlsplit(url)._replace(path="/")))
    for database in client.list_database_names():
        for collection in client[database].list_collection_names():
            for row in client[database][collection].find():
                say("mongodb", f"{database}.{collection}", row)


for store in sys.argv[1:]:
    (cassandra if store.startswith("cassandra:") else mongodb)(store)
