"""Runs SecantusDB in the foreground: serve.py WORK PORT. See start.sh.

Its own command line leaves out how often rows expire, and makes no first user.
"""

import pathlib
import signal
import sys

from pymongo import MongoClient
from secantus import SecantusDBServer

work, port = pathlib.Path(sys.argv[1]), int(sys.argv[2])
tls, users = work / "tls", work / "users"
settings = {
    "host": "127.0.0.1",
    "storage_path": str(work / "data"),
    # With 128M four large commands at once fill the fifth of it that may be unwritten, and every
    # thread of the server waits for room without end.
    "cache_size": "512M",
    "ttl_sweep_seconds": 1.0,
    "enable_test_commands": False,
}

# Where logins are asked for, nobody may make the first user: it is made before anybody can connect.
made = work / "users.made"
if users.exists() and not made.exists():
    server = SecantusDBServer(port=0, **settings)
    server.start()
    with MongoClient("127.0.0.1", server.port, directConnection=True) as client:
        for line in users.read_text().splitlines():
            name, password = line.split()
            client.admin.command("createUser", name, pwd=password, roles=["root"])
    server.stop()
    made.touch()

if tls.exists():
    settings |= {"tls_cert_file": str(tls / "server.crt"), "tls_key_file": str(tls / "server.key")}
server = SecantusDBServer(port=port, require_auth=users.exists(), **settings)


def end(*_):
    server.stop()
    sys.exit(0)


signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGINT, end)
server.start()
server.wait()
