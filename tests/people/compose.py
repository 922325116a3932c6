"""compose.py COMPOSE_JSON WORK: does by hand what an engine would do with servers/compose.yaml.

The files, commands, users, rights and mounts are the compose file's; instead of images there are this machine's programs.
Only two services are not what they are there: Cassandra gets its file through the recipe of `servers/`, and for mongod
there is what that recipe starts. Needs root, and a network and processes of its own.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
import urllib.request

compose, work = json.loads(pathlib.Path(sys.argv[1]).read_text()), pathlib.Path(sys.argv[2])
servers = pathlib.Path("servers").resolve()
# Folders that are not this machine's: private copies, or empty.
OWN = ["/etc", "/opt", "/var/lib", "/usr/local/bin", "/run"]
# Who a container is where its service does not say it.
USERS = {"falaj": "10001:10001", "kafka": "1000:1000"}


def run(*command, **options):
    return subprocess.run([str(word) for word in command], check=True, **options)


def printed(*command):
    return run(*command, stdout=subprocess.PIPE, text=True).stdout.strip()


def until(what, ask, seconds=300):
    end = time.monotonic() + seconds
    while not ask():
        if time.monotonic() > end:
            sys.exit(f"it never happens: {what}")
        time.sleep(0.3)


# A machine on which the containers' names and folders are: private copies over what is there.
def machine():
    run("ip", "link", "set", "lo", "up")
    work.chmod(0o755)
    for folder in OWN:
        own = work / "root" / folder[1:]
        own.mkdir(parents=True)
        if folder == "/etc":
            run("cp", "-a", "/etc/.", own)
        run("mount", "--bind", own, folder)
    with open("/etc/hosts", "a") as hosts:
        hosts.write("127.0.0.1 " + " ".join(compose["services"]) + "\n")
    pathlib.Path("/etc/falaj").mkdir()
    for name in compose["volumes"]:
        (work / "volumes" / name).mkdir(parents=True)
    # A new volume belongs to who its folder in the image belongs to.
    for name, user in {"falaj-data": 10001, "kafka-data": 1000}.items():
        os.chown(work / "volumes" / name, user, user)


# What the images have.
def programs():
    shutil.copy(shutil.which("falaj"), "/usr/local/bin/falaj")
    kafka = f". {servers}/lib.sh; kafka={servers}/kafka; . $kafka/kafka.sh; echo $kafka_home/jars"
    pathlib.Path("/opt/kafka/libs").mkdir(parents=True)
    run("mount", "--bind", printed("bash", "-c", kafka), "/opt/kafka/libs")
    for name, main in {"kafka-storage.sh": "kafka.tools.StorageTool", "kafka-server-start.sh": "kafka.Kafka"}.items():
        program = pathlib.Path("/opt/kafka/bin") / name
        program.parent.mkdir(exist_ok=True)
        # As in servers/kafka: a start takes less of the processor so.
        java = "exec java -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto $KAFKA_HEAP_OPTS $KAFKA_OPTS"
        java += ' -cp "/opt/kafka/libs/*" -Dorg.slf4j.simpleLogger.defaultLogLevel=warn'
        program.write_text(f'#!/bin/bash\n{java} {main} "$@"\n')
        program.chmod(0o755)
    # The interpreter itself, since an environment's may lead into a home that others must not enter.
    python = printed(servers / "venv.sh", servers / "cassandra/requirements.txt") + "/bin/python"
    where = "import sys, sysconfig; print(sys.base_prefix, sysconfig.get_path('purelib'))"
    for folder, what in zip(["/opt/python", "/opt/cqlsh"], printed(python, "-c", where).split()):
        pathlib.Path(folder).mkdir()
        run("mount", "--bind", what, folder)
    cqlsh = pathlib.Path("/usr/local/bin/cqlsh")
    shell = "exec /opt/python/bin/python3 -B -m cqlshlib"
    paths = "export LD_LIBRARY_PATH=/opt/python/lib PYTHONPATH=/opt/cqlsh"
    cqlsh.write_text(f'#!/bin/bash\n{paths}\n{shell} "$@"\n')
    cqlsh.chmod(0o755)


def inside(name, command):
    """Command line of `command` with the mounts, the user and the rights of a service."""
    service = compose["services"][name]
    script = ["set -e"]
    for volume in service.get("volumes", []):
        source, target, *mode = volume.split(":")
        target = pathlib.Path(target)
        if not pathlib.Path(*target.parts[:2]).exists():
            # A folder of mongod's, at the root of its image.
            continue
        if source.startswith("."):
            source = (servers / source).resolve()
            # The mount's place; an engine makes it.
            if not target.exists():
                target.touch()
        else:
            source = work / "volumes" / source
            target.mkdir(parents=True, exist_ok=True)
        script.append(f"mount --bind {source} {target}")
        if mode == ["ro"]:
            script.append(f"mount -o remount,bind,ro {target}")
    # After the volumes, which are mounts of their own.
    for folder in OWN + ["/"] if service.get("read_only") else []:
        script.append(f"mount -o remount,bind,ro {folder}")
    for folder in service.get("tmpfs", []):
        script.append(f"mount -t tmpfs tmpfs {folder}")
    uid, gid = service.get("user", USERS.get(name)).split(":")
    added = "".join(f",+{cap.lower()}" for cap in service.get("cap_add", []))
    rights = f"--no-new-privs --bounding-set=-all{added} --inh-caps=-all --clear-groups"
    script.append(f'cd / && exec setpriv --reuid={uid} --regid={gid} {rights} "$@"')
    return ["unshare", "--mount", "bash", "-c", "\n".join(script), name, *command]


def environment(name):
    stated = compose["services"][name].get("environment", {})
    image = {"XDG_DATA_HOME": "/var/lib"} if name == "falaj" else {}
    return {"PATH": os.environ["PATH"], "HOME": "/tmp", **image, **stated}


def start(name, command):
    log = open(work / f"{name}.log", "a")
    return subprocess.Popen(inside(name, command), env=environment(name), stdout=log, stderr=log, stdin=subprocess.DEVNULL)


def once(name):
    """Runs a service that ends; twice, since it runs at every `up`."""
    service = compose["services"][name]
    for _ in range(2):
        run(*inside(name, service["entrypoint"] + service["command"]), env=environment(name), stdin=subprocess.DEVNULL)


def healthy(name):
    test = compose["services"][name]["healthcheck"]["test"]
    assert test[0] == "CMD", test
    asked = subprocess.run(inside(name, test[1:]), env=environment(name), capture_output=True)
    return asked.returncode == 0


def refused(what, *command):
    if subprocess.run(command, capture_output=True, timeout=60).returncode == 0:
        sys.exit(f"nobody is asked for a login: {what}")


def secret(path):
    return (work / "volumes" / path).read_text().strip()


def kafka():
    service = compose["services"]["kafka"]
    server = start("kafka", service["entrypoint"] + service["command"])
    until("Kafka is healthy", lambda: server.poll() is not None or healthy("kafka"))
    if server.poll() is not None:
        sys.exit((work / "kafka.log").read_text()[-3000:])
    for port in [9092, 19092]:
        refused("Kafka", "falaj", "topic", "list", "--brokers", f"127.0.0.1:{port}")


def cassandra():
    folder = work / "cassandra"
    folder.mkdir()
    # The recipe is for a node with one token.
    settings = (servers / "compose/cassandra.yaml").read_text() + "initial_token:\n"
    (folder / "extra.yaml").write_text(settings)
    # And has a setting of another way to write.
    (folder / "durable").touch()
    pathlib.Path("/var/lib/cassandra").mkdir()
    run(servers / "cassandra/start.sh", folder, "9042", "7000", "7199")
    until("Cassandra is healthy", lambda: healthy("cassandra"))
    once("cassandra-roles")
    for login in ([], ["-u", "cassandra", "-p", "cassandra"], ["-u", "falaj", "-p", "cassandra"]):
        refused(f"Cassandra {login}", "cqlsh", *login, "-e", "SELECT * FROM system.local")


def mongo():
    folder = work / "mongo"
    folder.mkdir()
    (folder / "users").write_text(f"admin {secret('mongo-secrets/admin')}\n")
    run(servers / "mongo/start.sh", folder, "27017")
    until("MongoDB is healthy", lambda: healthy("mongo"))
    # What mongo.js does, for want of mongosh.
    script = """
import sys
from pymongo import MongoClient
address, admin, falaj = sys.argv[1:]
client = MongoClient(address, directConnection=True, username="admin", password=admin)
client.falaj.command("createUser", "falaj", pwd=falaj, roles=["readWrite"])
"""
    python = printed(servers / "mongo/venv.sh") + "/bin/python"
    words = [secret("mongo-secrets/admin"), secret("mongo-secrets/falaj")]
    run(python, "-c", script, "mongo:27017", *words)
    anonymous = "from pymongo import MongoClient; MongoClient('mongo:27017', directConnection=True).falaj.users.find_one()"
    refused("MongoDB", python, "-c", anonymous)


def page(path):
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:8050{path}", timeout=5).read().decode()
    except OSError:
        return ""


def falaj():
    command = compose["services"]["falaj"]["command"]
    # The internet, which is not here.
    source = ["--set=source.http.url=http://127.0.0.1:8051/api/", "--set=source.http.every=1s"]
    subprocess.Popen(["falaj", "random-user", "serve"], stderr=subprocess.DEVNULL)
    sets = [word for word in command if word.startswith("--set=")]
    check = ["/usr/local/bin/falaj", "check", command[1], "--connect", *sets]
    looked = subprocess.run(inside("falaj", check), env=environment("falaj"), capture_output=True, text=True)
    # The containers' own network, of this machine alone, is without TLS; nothing else may be said.
    allowed = ["topic `messages`: records", "sink `cassandra`: rows and login", "sink `mongodb`: rows and login"]
    allowed = [f"warning: {part} travel the network without TLS" for part in allowed]
    warnings = [line for line in looked.stderr.splitlines() if line.startswith("warning:")]
    if looked.returncode != 0 or warnings != allowed:
        sys.exit(f"the doctor is not content: {looked.stdout}{looked.stderr}")
    running = start("falaj", ["/usr/local/bin/falaj", *command, *source])
    written = ["local", "cassandra", "mongodb"]
    lines = lambda: page("/metrics").splitlines()
    rows = lambda sink: any(
        line.startswith("falaj_sink_rows_total{") and f'"{sink}"' in line and not line.endswith(" 0") for line in lines()
    )
    try:
        until("falaj writes to all stores", lambda: page("/readyz") and all(map(rows, written)))
    except SystemExit as never:
        sys.exit(f"{never}\n{(work / 'falaj.log').read_text()[-3000:]}")
    told = [password for password in map(secret, secrets()) if password in page("/api/v1/status") + page("/metrics")]
    assert not told, "a password is shown"
    # `unshare` became `setpriv`, and that falaj: it is falaj that is told to stop.
    running.terminate()
    if running.wait(timeout=90) != 0:
        sys.exit(f"falaj ended with {running.returncode}: {(work / 'falaj.log').read_text()[-3000:]}")
    log = (work / "falaj.log").read_text()
    assert not any(password in log for password in map(secret, secrets())), "a password is logged"


def secrets():
    return [f"falaj-secrets/{name}" for name in ("kafka", "cassandra", "mongo")]


machine()
programs()
once("secrets")
assert len({secret(path) for path in secrets()}) == 3
kafka()
cassandra()
mongo()
falaj()
