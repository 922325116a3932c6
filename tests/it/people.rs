//! What people set falaj up with: the real pipeline file, the guide, the compose file, the image, the systemd unit.
//!
//! No container engine and no systemd run here. What they would run is run by hand, in a network and
//! among processes of its own, and what they would read is read by the tools that check it.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use falaj_servers::{Venv, have};
use serde_json::Value;

use crate::harness::{Running, Workplace, output, repository, stderr, stdout};

const REAL: &str = "examples/random-users/falaj.real.toml";
const GUIDE: &str = "docs/guide/real-servers.md";

fn read(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn toml(path: &str) -> toml::Table {
    toml::from_str(&read(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

#[test]
fn the_real_pipeline_differs_from_the_laptops_only_in_where_things_are() {
    let (mut laptop, mut real) = (toml("examples/random-users/falaj.toml"), toml(REAL));
    let mut cut = |table: &str, key: &str| {
        let both = [&mut laptop, &mut real];
        both.map(|file| file[table].as_table_mut().unwrap().remove(key))
    };
    assert_eq!(
        cut("topic", "brokers").map(|b| b.unwrap().as_str().unwrap().to_owned()),
        ["embedded", "127.0.0.1:9092"]
    );
    let [laptops, own] = cut("pipeline", "name");
    assert_ne!(laptops, own, "another topic needs another data directory");
    for sink in ["cassandra", "mongodb"] {
        let [nothing, there] = cut("sinks", sink);
        assert_eq!(nothing, None);
        assert_eq!(there.unwrap()["type"].as_str(), Some(sink));
    }
    assert_eq!(laptop, real);
}

#[test]
fn the_real_pipeline_is_in_order() {
    let checked = output(["check", &repository().join(REAL).display().to_string()]);
    assert_eq!(checked.status.code(), Some(0), "{}", stderr(&checked));
}

// The guide.

/// The fenced blocks of a language, in order.
fn blocks(markdown: &str, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = markdown.lines();
    while let Some(line) = lines.next() {
        if let Some(fence) = line.strip_prefix("```") {
            let text: Vec<&str> = lines.by_ref().take_while(|l| *l != "```").collect();
            if fence == language {
                found.push(text.join("\n") + "\n");
            }
        }
    }
    found
}

/// A bash script in a network and among processes of its own: all ports are free, nobody can be
/// reached, and everything that it starts ends with it. None where the system does not allow that,
/// which is said on stderr.
fn alone(script: &str) -> Option<Command> {
    if !have(&["unshare", "ip", "mount", "curl"]) {
        return None;
    }
    let root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    let mut command = Command::new("unshare");
    if !root {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--net", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.args(["bash", "-euc"]);
    command.stdin(Stdio::null()).current_dir(repository());
    let mut probe = Command::new("unshare");
    let allowed = probe.args(command.get_args()).arg("true").output().unwrap();
    if !allowed.status.success() {
        eprintln!("SKIPPED: no namespaces: {}", stderr(&allowed));
        assert!(std::env::var("CI").as_deref() != Ok("true"));
        return None;
    }
    let falaj = Path::new(env!("CARGO_BIN_EXE_falaj")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    command.env("PATH", format!("{}:{path}", falaj.display()));
    for variable in ["FALAJ_LOG", "FALAJ_SERVERS", "FALAJ_TEST_MONGODB_URI"] {
        command.env_remove(variable);
    }
    command.arg(script);
    Some(command)
}

/// Fetches what the servers are made of, which nobody can who is alone.
fn fetched() -> bool {
    if !have(&["java", "mvn", "python3", "setsid", "flock"]) {
        return false;
    }
    let fetch = "
        . servers/lib.sh
        servers=$PWD/servers
        kafka=$servers/kafka && . servers/kafka/kafka.sh && kafka_jars
        cassandra=$servers/cassandra && . servers/cassandra/cassandra.sh && cassandra_jars
        servers/venv.sh servers/cassandra/requirements.txt
        servers/mongo/venv.sh";
    let fetched = Command::new("bash")
        .args(["-euc", fetch])
        .current_dir(repository())
        .env_remove("FALAJ_SERVERS")
        .output()
        .unwrap();
    assert!(fetched.status.success(), "{}", stderr(&fetched));
    true
}

#[test]
fn every_command_of_the_guide_to_real_servers_works_as_it_stands() {
    let guide = read(GUIDE);
    let commands = blocks(&guide, "sh");
    assert!(commands.len() > 10);
    // What no test runs is what needs Docker or systemd, and nothing else.
    for line in blocks(&guide, "console").iter().flat_map(|b| b.lines()) {
        let word = line.split_whitespace().next().unwrap();
        assert!(
            ["docker", "sudo", "systemctl", "journalctl"].contains(&word),
            "{line}"
        );
    }
    assert!(
        read("justfile").contains("servers ACT *ARGS:\n    servers/servers.sh {{ACT}} {{ARGS}}\n")
    );
    if !fetched() {
        return;
    }
    let place = Workplace::new();
    let Some(mut all) = alone("exec tests/people/guide.sh \"$WORK\"") else {
        return;
    };
    let name = |i: usize, end: &str| format!("{i:02}.{end}");
    for (i, block) in commands.iter().enumerate() {
        place.write(&name(i, "sh"), block.as_bytes());
    }
    let ran = all.env("WORK", place.path()).output().unwrap();
    let log = std::fs::read_to_string(place.path().join("falaj.log")).unwrap_or_default();
    assert!(
        ran.status.success(),
        "{}{}{log}",
        stdout(&ran),
        stderr(&ran)
    );

    // What a person is told to see.
    let said = |command: &str| -> Vec<String> {
        let numbers = (0..commands.len()).filter(|i| commands[*i].contains(command));
        let said = numbers.map(|i| {
            ["out", "err"]
                .map(|end| std::fs::read_to_string(place.path().join(name(i, end))).unwrap())
                .concat()
        });
        said.collect()
    };
    for up in [
        "kafka: 127.0.0.1:9092",
        "cassandra: 127.0.0.1:9042",
        "mongo: 127.0.0.1:27017",
    ] {
        assert!(
            said("servers health")[0].contains(up),
            "{:?}",
            said("servers health")
        );
    }
    let doctor = said("--connect");
    for line in [
        "topic `messages` at 127.0.0.1:9092: the topic is not there yet: `falaj run` makes it, ok",
        "sink `local`",
        ": Cassandra 5.0.9, ",
        "sink `mongodb` at ",
    ] {
        assert!(doctor[0].contains(line), "no {line}: {}", doctor[0]);
    }
    for fault in ["error: ", "warning: ", " WARN "] {
        assert!(!doctor[0].contains(fault), "{}", doctor[0]);
    }
    assert!(
        said("cqlsh").concat().contains("DE |"),
        "{:?}",
        said("cqlsh")
    );
    assert!(
        said("pymongo").concat().contains("gmail.com "),
        "{:?}",
        said("pymongo")
    );
    assert!(
        said("--silent http")
            .concat()
            .contains("\"name\":\"cassandra\"")
    );
    assert!(doctor[1].contains("exit code 1"), "{}", doctor[1]);
    assert!(
        doctor[1].contains("error: sink `cassandra`"),
        "{}",
        doctor[1]
    );
    assert!(doctor[1].contains("hint:"), "{}", doctor[1]);
    assert!(said("--fail").concat().contains("\"ready\":true"));
}

// The compose file.

const COMPOSE: &str = "servers/compose.yaml";

fn venv() -> Option<Venv> {
    Venv::of(&repository().join("tests/people/requirements.txt"))
}

/// A program of the environment.
fn tool(venv: &Venv, name: &str) -> Command {
    let python = venv.python();
    let bin = Path::new(python.get_program()).parent().unwrap();
    let mut command = Command::new(bin.join(name));
    command.current_dir(repository()).stdin(Stdio::null());
    command
}

/// The compose file, its anchors resolved.
fn compose(venv: &Venv) -> Value {
    let script = "
import json, sys
from ruamel.yaml import YAML
print(json.dumps(YAML(typ='safe').load(open(sys.argv[1]))))";
    let mut python = venv.python();
    let read = python
        .args(["-c", script, COMPOSE])
        .current_dir(repository());
    let read = read.output().unwrap();
    assert!(read.status.success(), "{}", stderr(&read));
    serde_json::from_str(&stdout(&read)).unwrap()
}

fn services(compose: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let services = compose["services"].as_object().unwrap();
    services
        .iter()
        .map(|(name, service)| (name.as_str(), service))
}

fn texts(list: &Value) -> Vec<&str> {
    let list = list.as_array().into_iter().flatten();
    list.map(|text| text.as_str().unwrap()).collect()
}

/// The version that a `pom.xml` of `servers/` names.
fn version(of: &str) -> String {
    let pom = read(&format!("servers/{of}/pom.xml"));
    let (_, rest) = pom.split_once(&format!("<{of}.version>")).unwrap();
    rest.split('<').next().unwrap().to_owned()
}

#[test]
fn the_compose_file_is_one_and_grants_no_more_than_is_needed() {
    let Some(venv) = venv() else { return };
    let mut check = tool(&venv, "check-jsonschema");
    let checked = check
        .args(["--builtin-schema", "vendor.compose-spec", COMPOSE])
        .output()
        .unwrap();
    assert!(checked.status.success(), "{}", stdout(&checked));

    let compose = compose(&venv);
    let mut images = BTreeSet::new();
    let (mut declared, mut mounted) = (BTreeSet::new(), BTreeSet::new());
    declared.extend(
        compose["volumes"]
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str),
    );
    for (name, service) in services(&compose) {
        let image = service["image"].as_str().unwrap();
        let tag = image.split_once(':').unwrap().1;
        assert_eq!(tag.split('.').count(), 3, "{name}: `{image}` is not pinned");
        images.insert(image.to_owned());
        for port in texts(&service["ports"]) {
            assert!(port.starts_with("127.0.0.1:"), "{name}: {port}");
        }
        assert_eq!(texts(&service["cap_drop"]), ["ALL"], "{name}");
        assert_eq!(
            texts(&service["security_opt"]),
            ["no-new-privileges:true"],
            "{name}"
        );
        for limit in ["mem_limit", "pids_limit"] {
            assert!(!service[limit].is_null(), "{name} has no {limit}");
        }
        let once = service["restart"] == "no";
        assert!(once || service["restart"] == "unless-stopped", "{name}");
        // falaj's is in its image.
        assert!(
            once || name == "falaj" || !service["healthcheck"]["test"].is_null(),
            "{name}"
        );
        for volume in texts(&service["volumes"]) {
            let source = volume.split(':').next().unwrap();
            if source.starts_with('.') {
                assert!(volume.ends_with(":ro"), "{name}: {volume}");
                let file = repository().join("servers").join(source);
                assert!(file.is_file(), "{name}: there is no {source}");
            } else {
                mounted.insert(source);
                assert!(declared.contains(source), "{name}: no volume {source}");
            }
        }
        for (other, how) in service["depends_on"].as_object().into_iter().flatten() {
            let wanted = if compose["services"][other]["restart"] == "no" {
                "service_completed_successfully"
            } else {
                "service_healthy"
            };
            assert_eq!(how["condition"], wanted, "{name} and {other}");
        }
        for (key, value) in service["environment"].as_object().into_iter().flatten() {
            let secret = key.contains("PASSWORD") || key.contains("SECRET");
            let value = value.as_str().unwrap();
            assert!(
                !secret || value.starts_with("/run/secrets/"),
                "{name}: {key}"
            );
        }
    }
    assert_eq!(declared, mounted, "a volume that nobody mounts");
    // What is tried here is what runs there.
    assert!(
        images.contains(&format!("apache/kafka:{}", version("kafka"))),
        "{images:?}"
    );
    assert!(
        images.contains(&format!("cassandra:{}", version("cassandra"))),
        "{images:?}"
    );
    assert!(
        images.contains(&format!("falaj:{}", env!("CARGO_PKG_VERSION"))),
        "{images:?}"
    );
    let falaj = &compose["services"]["falaj"];
    assert_eq!(falaj["read_only"], true);
    let context = Path::new("servers").join(falaj["build"]["context"].as_str().unwrap());
    assert!(repository().join(context).join("Dockerfile").is_file());
}

#[test]
fn the_pipeline_that_compose_runs_is_in_order() {
    let Some(venv) = venv() else { return };
    let compose = compose(&venv);
    let falaj = &compose["services"]["falaj"];
    let mount = texts(&falaj["volumes"])[0].to_owned();
    let [source, target, _] = mount.split(':').collect::<Vec<_>>()[..] else {
        panic!("{mount}")
    };
    let command = texts(&falaj["command"]);
    assert_eq!(command[..2], ["run", target]);
    let file = repository().join("servers").join(source);
    let sets = command.iter().filter(|arg| arg.starts_with("--set="));
    let mut args = vec!["check", file.to_str().unwrap()];
    args.extend(sets);
    let checked = output(&args);
    assert_eq!(checked.status.code(), Some(0), "{}", stderr(&checked));
    // Not a password, but where one is.
    let passwords = command.iter().filter(|arg| arg.contains("password"));
    for set in passwords.clone() {
        assert!(set.contains("file=\"/run/secrets/falaj/"), "{set}");
    }
    assert_eq!(passwords.count(), 3);
}

/// All of the compose file's programs, one after another: part of the long run.
#[test]
fn what_compose_runs_works_by_hand() {
    if !crate::harness::long() {
        return;
    }
    let Some(venv) = venv() else { return };
    if !fetched() || !have(&["setpriv"]) {
        return;
    }
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        eprintln!("SKIPPED: only root may be other users");
        assert!(std::env::var("CI").as_deref() != Ok("true"));
        return;
    }
    let place = Workplace::new();
    let file = place.write("compose.json", compose(&venv).to_string().as_bytes());
    let script = "exec python3 -B tests/people/compose.py \"$0\" \"$1\"";
    let Some(mut by_hand) = alone(script) else {
        return;
    };
    let ran = by_hand
        .args([file.as_path(), place.path()])
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}{}", stdout(&ran), stderr(&ran));
}

// The image.

fn dockerfile() -> Vec<(String, String)> {
    let text = read("Dockerfile").replace("\\\n", " ");
    let lines = text
        .lines()
        .filter(|l| !l.starts_with('#') && !l.trim().is_empty());
    let steps = lines.map(|line| line.trim().split_once(' ').unwrap());
    steps
        .map(|(word, rest)| (word.to_owned(), rest.trim().to_owned()))
        .collect()
}

fn step(steps: &[(String, String)], word: &str) -> String {
    let found = steps.iter().rfind(|(w, _)| w == word);
    found.unwrap_or_else(|| panic!("no {word}")).1.clone()
}

#[test]
fn the_dockerfile_builds_what_is_there_and_runs_it_as_nobody() {
    let Some(venv) = venv() else { return };
    let linted = tool(&venv, "hadolint").arg("Dockerfile").output().unwrap();
    assert!(linted.status.success(), "{}", stdout(&linted));
    let steps = dockerfile();
    let froms: Vec<&str> = steps
        .iter()
        .filter(|(w, _)| w == "FROM")
        .map(|(_, r)| r.as_str())
        .collect();
    let rust = toml("Cargo.toml")["workspace"]["package"]["rust-version"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        froms,
        [
            format!("rust:{rust}-bookworm AS build").as_str(),
            "debian:bookworm-slim"
        ]
    );
    let build = step(&steps, "RUN");
    assert!(build.contains(
        "cargo build --release --locked --package falaj --bin falaj --target-dir /target"
    ));
    let user = step(&steps, "USER");
    let (uid, gid) = user.split_once(':').unwrap();
    assert!(uid.parse::<u32>().unwrap() >= 1000);
    assert!(build.contains(&format!("--owner {uid} --group {gid} /out/var/lib/falaj")));
    assert_eq!(step(&steps, "ENV"), "XDG_DATA_HOME=/var/lib");
    assert_eq!(step(&steps, "ENTRYPOINT"), "[\"/usr/local/bin/falaj\"]");
    assert!(
        !step(&steps, "CMD").contains("insecure"),
        "the page is not open by itself"
    );

    // The second image has these libraries and no others.
    let linked = Command::new("ldd")
        .arg(env!("CARGO_BIN_EXE_falaj"))
        .output()
        .unwrap();
    let linked = stdout(&linked);
    let libraries: Vec<&str> = linked
        .lines()
        .filter_map(|l| l.split_whitespace().next())
        .collect();
    assert!(!libraries.is_empty());
    for library in libraries {
        let name = library.rsplit('/').next().unwrap();
        let there = [
            "linux-vdso",
            "ld-linux",
            "libc.",
            "libm.",
            "libgcc_s",
            "libstdc++",
            "libdl",
            "libpthread",
            "librt",
        ];
        assert!(there.iter().any(|t| name.starts_with(t)), "{library}");
    }
    // What the build reads is not held back from it.
    let ignored = read(".dockerignore");
    for folder in [
        "src",
        "crates",
        "web",
        "examples",
        "servers",
        "bench",
        "tests",
        "Cargo.lock",
    ] {
        assert!(!ignored.lines().any(|l| l == folder), "{folder}");
    }
}

#[test]
fn the_images_health_check_tells_a_falaj_that_is_alive() {
    let steps = dockerfile();
    let healthcheck = step(&steps, "HEALTHCHECK");
    let (_, command) = healthcheck.split_once("CMD ").unwrap();
    let command: Vec<String> = serde_json::from_str(command.trim()).unwrap();
    let place = Workplace::new();
    let pipeline = place.pipeline("[source.ingest]");
    let running = Running::start(&place.run_args(&pipeline, &[]));
    let check = || {
        let script = command[2].replace("8050", &running.address.port().to_string());
        assert_ne!(script, command[2]);
        let mut bash = Command::new(&command[0]);
        bash.args([&command[1], &script])
            .output()
            .unwrap()
            .status
            .success()
    };
    assert!(check());
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port().to_string();
    drop(free);
    let script = command[2].replace("8050", &port);
    let nobody = Command::new(&command[0])
        .args([&command[1], &script])
        .output()
        .unwrap();
    assert!(!nobody.status.success());
    assert_eq!(running.terminate().0, Some(0));
}

// The systemd unit.

#[test]
fn the_systemd_unit_is_one_and_shuts_off_what_falaj_does_not_need() {
    if !have(&["systemd-analyze"]) {
        return;
    }
    let unit = read("packaging/systemd/falaj@.service");
    let exec = unit
        .lines()
        .find_map(|l| l.strip_prefix("ExecStart="))
        .unwrap();
    let (program, arguments) = exec.split_once(' ').unwrap();
    assert!(unit.contains("\nRestartPreventExitStatus=2\n"));

    // As it is installed, but for where the program is; with what the guide adds to it.
    let place = Workplace::new();
    let unit = unit.replace(program, env!("CARGO_BIN_EXE_falaj"));
    let installed = place.write("falaj@random-users.service", unit.as_bytes());
    let dropin = place.path().join("falaj@random-users.service.d");
    std::fs::create_dir(&dropin).unwrap();
    let credentials = blocks(&read(GUIDE), "ini").concat();
    assert!(credentials.contains("LoadCredential="));
    std::fs::write(dropin.join("override.conf"), credentials).unwrap();
    let analyze = |args: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        command.args(args).arg(&installed).stdin(Stdio::null());
        command.output().unwrap()
    };
    let verified = analyze(&["verify", "--man=no"]);
    assert!(verified.status.success(), "{}", stderr(&verified));
    assert_eq!(stderr(&verified), "");
    // 10 is everything, 1.2 is what it has; the next step down is a network of its own.
    let judged = analyze(&["security", "--offline=true", "--threshold=15", "--no-pager"]);
    assert!(judged.status.success(), "{}", stdout(&judged));

    // And falaj takes those arguments.
    let name = "random-users";
    let arguments = arguments
        .replace("%i", name)
        .replace("%S", &place.path().display().to_string());
    let pipeline = place.pipeline("[source.file]\npath = \"people.ndjson\"");
    place.write("people.ndjson", b"");
    let mut arguments: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
    assert_eq!(arguments[1], format!("/etc/falaj/{name}.toml"));
    arguments[1] = pipeline.display().to_string();
    arguments.push("--until-caught-up".into());
    let ran = output(&arguments);
    assert!(ran.status.success(), "{}", stderr(&ran));
    assert!(place.path().join("falaj").join(name).is_dir());
}
