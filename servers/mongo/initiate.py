"""Makes a replica set of mongods, waits for its primary, and makes the users: initiate.py WORK HOST:PORT..

Does nothing that was done before. A mongod allows both to whoever comes from its own machine, as long as there is no user.
"""

import pathlib
import sys
import time

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

ALREADY_INITIALIZED, UNAUTHORIZED = 23, 13
work, members = pathlib.Path(sys.argv[1]), sys.argv[2:]
tls, users, made = work / "tls", work / "users", work / "users.made"
options = {"directConnection": True, "serverSelectionTimeoutMS": 10_000}
if tls.exists():
    options |= {"tls": True, "tlsCAFile": str(tls / "ca.pem")}
client = MongoClient(members[0], **options)

config = {"_id": "falaj", "members": [{"_id": n, "host": host} for n, host in enumerate(members)]}
try:
    client.admin.command("replSetInitiate", config)
except OperationFailure as error:
    # With users the server does not even say that it was initiated before.
    if error.code not in (ALREADY_INITIALIZED, UNAUTHORIZED):
        raise

deadline = time.monotonic() + 60
while True:
    try:
        hello = client.admin.command("hello")
        # In a larger set any member may have been elected.
        if hello["isWritablePrimary"] or (len(members) > 1 and "primary" in hello):
            break
    except PyMongoError:
        pass
    if time.monotonic() > deadline:
        sys.exit("error: no primary was elected")
    time.sleep(0.1)

if users.exists() and not made.exists():
    for line in users.read_text().splitlines():
        name, password = line.split()
        client.admin.command("createUser", name, pwd=password, roles=["root"])
        # From the second on, somebody has to be logged in.
        client = MongoClient(members[0], username=name, password=password, **options)
    made.touch()
