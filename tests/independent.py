#!/usr/bin/env python3
"""Computes the views of examples/random-users independently, and compares them with falaj's.

usage: independent.py RECORDS.ndjson TAP.jsonl VIEWS.sqlite

RECORDS is what went into the source, TAP what `falaj tap --at topic --json` printed, VIEWS the
SQLite sink. Nothing here is shared with falaj: the rules are those of the pipeline file's
reference, written down a second time. Prints one line a view; exits 1 on a difference. Prints
counts only, never a value of a person.
"""

import json
import sqlite3
import sys
import unicodedata
from collections import Counter, defaultdict
from datetime import datetime, timezone


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


def main(records, tap, views):
    cleared, rejected = [], 0
    with open(records, encoding="utf-8", newline="\n") as lines:
        for line in lines:
            if line.strip():
                try:
                    cleared.append(clear(line))
                except Rejected:
                    rejected += 1

    with open(tap, encoding="utf-8") as lines:
        topic = [json.loads(line) for line in lines]
    names = list(cleared[0][0])
    shape = lambda fields: tuple(fields.get(name) for name in names)

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
    rows = lambda sql: db.execute(sql).fetchall()
    db = sqlite3.connect(f"file:{views}?mode=ro", uri=True)
    comparisons = {
        "topic": (Counter(shape(f) for f, _ in cleared), Counter(shape(m["value"]) for m in topic)),
        "users_by_nationality": (
            dict(Counter(f["nat"] for f, _ in cleared)),
            dict(rows("SELECT nat, users FROM users_by_nationality")),
        ),
        "email_domains": (
            dict(Counter(f["email_domain"] for f, _ in cleared)),
            dict(rows("SELECT email_domain, users FROM email_domains")),
        ),
        "average_age": (
            {m: (n, round(s / k, 9) if k else None) for m, (n, k, s) in minutes.items()},
            {
                m: (n, None if a is None else round(a, 9))
                for m, a, n in rows("SELECT minute, average_age, users FROM average_age")
            },
        ),
        "users": (
            Counter((f[0], f[1], f[3]) for f in newest.values()),
            Counter(rows("SELECT nat, gender, age_band FROM users")),
        ),
    }
    wrong = 0
    for name, (expected, found) in comparisons.items():
        same = expected == found
        wrong += not same
        size = lambda c: f"{len(c)} groups, {sum(v for v in c.values() if isinstance(v, int))} records"
        print(f"{name}: {'equal' if same else 'DIFFERENT'} (expected {size(expected)}; found {size(found)})")
    print(f"cleared {len(cleared)}, rejected {rejected}")
    return 1 if wrong else 0


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
