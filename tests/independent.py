#!/usr/bin/env python3
"""Computes the views of examples/random-users independently, and compares them with falaj's.

usage: independent.py RECORDS.ndjson TAP.jsonl STORE..

RECORDS is what went into the source (`-` where nobody kept it: then the topic is believed), TAP what `falaj tap --at topic --json` printed, a STORE what
a sink wrote: the path of a SQLite file, `cassandra://HOST:PORT/KEYSPACE`, or `mongodb://../DATABASE`
(with the stores' own Python drivers, tests/stores/requirements.txt). Nothing here is shared with
falaj: the rules are those of the references, written down a second time. Prints one line a view and
store; exits 1 on a difference. Prints counts only, never a value of a person.
"""

import json
import sqlite3
import sys
import unicodedata
from collections import Counter, defaultdict
from datetime import datetime, timezone
from urllib.parse import urlsplit, urlunsplit


FIELDS = ["nat", "gender", "age", "age_band", "email_domain"]


class Rejected(Exception):
    pass


def at(record, path):
    """The value at a path of keys; None where it is absent or leads through a non-object."""
    for key in path.split("."):
        if not isinstance(record, dict):
            return None
        record = record.get(key)
    return record


def typed(record, path, kind):
    value = at(record, path)
    if value is None:
        return None
    if kind == "int":
        if isinstance(value, bool) or not isinstance(value, int) or not -(2**63) <= value < 2**63:
            raise Rejected(path)
    elif not isinstance(value, str):
        raise Rejected(path)
    return value


def clear(line):
    """The declared fields of one record, as the topic should hold them, and its subject."""
    try:
        record = json.loads(line, parse_constant=lambda _: (_ for _ in ()).throw(ValueError()))
    except ValueError as error:
        raise Rejected("json") from error
    if not isinstance(record, dict):
        raise Rejected("object")
    age = typed(record, "dob.age", "int")
    if age is not None and not -1000 <= age // 10 <= 1000:
        raise Rejected("dob.age")
    email = typed(record, "email", "string")
    fields = {
        "nat": typed(record, "nat", "string"),
        "gender": typed(record, "gender", "string"),
        "age": None if age is None else min(120, max(0, age)),
        "age_band": None if age is None else f"{age // 10 * 10}-{age // 10 * 10 + 9}",
        "email_domain": None,
    }
    if email is not None and "@" in email:
        domain = email.strip().rpartition("@")[2].lower()
        fields["email_domain"] = domain.encode("idna").decode() or None
    subject = unicodedata.normalize("NFKC", email or "").lower().strip()
    if not subject:
        raise Rejected("subject")
    return fields, subject


def time(value):
    """A time as any store gives it, as text."""
    if isinstance(value, int):
        value = datetime.fromtimestamp(value / 1e6, timezone.utc)
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%SZ")
    return value


def sqlite(path):
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    db.row_factory = sqlite3.Row
    return lambda view: [dict(row) for row in db.execute(f'SELECT * FROM "{view}"')]


def cassandra(url):
    from cassandra.cluster import Cluster, ExecutionProfile, EXEC_PROFILE_DEFAULT
    from cassandra.query import dict_factory

    profile = ExecutionProfile(row_factory=dict_factory, request_timeout=120)
    parts = urlsplit(url)
    cluster = Cluster([parts.hostname], port=parts.port, execution_profiles={EXEC_PROFILE_DEFAULT: profile})
    session = cluster.connect(parts.path.strip("/"))
    return lambda view: list(session.execute(f'SELECT * FROM "{view}"'))


def mongodb(url):
    from pymongo import MongoClient

    parts = urlsplit(url)
    client = MongoClient(urlunsplit(parts._replace(path="/")))
    database = client[parts.path.strip("/")]
    return lambda view: list(database[view].find())


def read(store):
    """What gives the rows of a view in a store, each as a dict."""
    if store.startswith("cassandra:"):
        return cassandra(store)
    if store.startswith("mongodb:"):
        return mongodb(store)
    return sqlite(store)


def stored(rows):
    """The views of a store in the form of the expected ones."""
    ages = rows("average_age")
    return {
        "users_by_nationality": {row["nat"]: row["users"] for row in rows("users_by_nationality")},
        "email_domains": {row["email_domain"]: row["users"] for row in rows("email_domains")},
        "average_age": {
            time(row["minute"]): (row["users"], rounded(row["average_age"])) for row in ages
        },
        "users": Counter((row["nat"], row["gender"], row["age_band"]) for row in rows("users")),
    }


def rounded(average):
    return None if average is None else round(average, 9)


def given(records):
    """What the source gave: cleared fields with their subject, and how many are rejected."""
    cleared, rejected = [], 0
    with open(records, encoding="utf-8", newline="\n") as lines:
        for line in lines:
            if line.strip():
                try:
                    cleared.append(clear(line))
                except Rejected:
                    rejected += 1
    return cleared, rejected


def main(records, tap, stores):
    with open(tap, encoding="utf-8") as lines:
        topic = [json.loads(line) for line in lines]
    if records == "-":
        fields = lambda value: {name: value.get(name) for name in FIELDS}
        cleared, rejected = [(fields(m["value"]), m["value"]["pid"]) for m in topic], 0
    else:
        cleared, rejected = given(records)
    shape = lambda fields: tuple(fields.get(name) for name in FIELDS)

    minutes = defaultdict(lambda: [0, 0, 0])
    for message in topic:
        when = datetime.fromisoformat(message["timestamp"].replace("Z", "+00:00"))
        minute = when.replace(second=0, microsecond=0).astimezone(timezone.utc)
        window = minutes[minute.strftime("%Y-%m-%dT%H:%M:%SZ")]
        window[0] += 1
        if message["value"].get("age") is not None:
            window[1] += 1
            window[2] += message["value"]["age"]

    newest = {subject: shape(fields) for fields, subject in cleared}
    expected = {
        "users_by_nationality": dict(Counter(f["nat"] for f, _ in cleared)),
        "email_domains": dict(Counter(f["email_domain"] for f, _ in cleared)),
        "average_age": {m: (n, rounded(s / k) if k else None) for m, (n, k, s) in minutes.items()},
        "users": Counter((f[0], f[1], f[3]) for f in newest.values()),
    }
    comparisons = [
        ("topic", Counter(shape(f) for f, _ in cleared), Counter(shape(m["value"]) for m in topic))
    ]
    for store in stores:
        found = stored(read(store))
        kind = store.partition(":")[0] if "://" in store else "sqlite"
        comparisons += [(f"{kind} {name}", expected[name], found[name]) for name in expected]
    wrong = 0
    for name, expected, found in comparisons:
        same = expected == found
        wrong += not same
        size = lambda c: f"{len(c)} groups, {sum(v for v in c.values() if isinstance(v, int))} records"
        print(f"{name}: {'equal' if same else 'DIFFERENT'} (expected {size(expected)}; found {size(found)})")
    print(f"cleared {len(cleared)}, rejected {rejected}")
    return 1 if wrong else 0


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
