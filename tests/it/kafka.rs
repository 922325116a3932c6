//! The whole line with a real Kafka as its topic: the same file, the same results, whoever is killed.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use falaj_servers::{Kafka, KafkaOptions};
use serde_json::Value;

use crate::harness::{
    Dice, PATIENCE, Running, Workplace, assert_balanced, falaj, long, output, stderr, stdout,
};
use crate::replay;

/// The broker of the tests that do not harm it.
fn shared() -> Option<&'static Kafka> {
    static KAFKA: OnceLock<Option<Kafka>> = OnceLock::new();
    KAFKA
        .get_or_init(|| Kafka::start(&KafkaOptions::default()))
        .as_ref()
}

/// The example's pipeline over `source`, with its topic on `brokers` under the name `topic`.
fn pipeline(place: &Workplace, source: &str, brokers: &str, topic: &str) -> PathBuf {
    let path = place.pipeline(source);
    let text = std::fs::read_to_string(&path).unwrap();
    let text = text
        .replacen(
            "name       = \"messages\"",
            &format!("name = \"{topic}\""),
            1,
        )
        .replacen(
            "brokers    = \"embedded\"",
            &format!("brokers = \"{brokers}\""),
            1,
        );
    assert!(text.contains(brokers) && text.contains(topic));
    std::fs::write(&path, text).unwrap();
    path
}

/// Fictitious people, one JSON object a line.
fn people(place: &Workplace, count: u64, seed: &str) -> PathBuf {
    let path = place.path().join("records.ndjson");
    let mut out = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
    let domains = "example.com=5,example.org=3,example.net=1";
    let domains: falaj_randomuser::Domains = domains.parse().unwrap();
    falaj_randomuser::write_ndjson(&mut out, count, seed, &domains).unwrap();
    std::io::Write::flush(&mut out).unwrap();
    path
}

const FILE: &str = "[source.file]\npath = \"records.ndjson\"";
const OFTEN: [&str; 2] = ["--set", "pipeline.checkpoint=100ms"];

#[test]
fn the_same_file_gives_the_same_views_on_a_real_cluster() {
    let Some(kafka) = shared() else { return };
    let place = Workplace::new();
    let records = people(&place, 50_000, "same");
    let pipeline = pipeline(&place, FILE, &kafka.brokers(), "it.same");
    let ledger = place.run_to_end(&pipeline, &[]);
    assert_balanced(&ledger);
    assert_eq!(ledger["source"]["in"], 50_000);
    assert_eq!(ledger["topic"]["read"], ledger["source"]["published"]);
    place.compare(&records, &place.tap(&pipeline));
    let again = place.run_to_end(&pipeline, &[]);
    assert_eq!(again, ledger, "a second run adds nothing");

    // What lag tools see: the pipeline's group stands at the end of the topic.
    let groups = kafka
        .tool("ConsumerGroupCommand", ["--describe", "--all-groups"])
        .output()
        .unwrap();
    let lines = stdout(&groups);
    let lags: Vec<&str> = lines
        .lines()
        .filter(|line| line.contains(" it.same "))
        .filter_map(|line| line.split_whitespace().nth(5))
        .collect();
    assert_eq!(lags, ["0"; 4], "{lines}");
}

/// The topic outlives a data directory; the key that cleared its records does not.
#[test]
fn a_new_data_directory_is_told_that_the_topic_is_of_another_key() {
    let Some(kafka) = shared() else { return };
    let place = Workplace::new();
    people(&place, 1_000, "lost");
    let pipeline = pipeline(&place, FILE, &kafka.brokers(), "it.lost");
    place.run_to_end(&pipeline, &[]);
    std::fs::remove_dir_all(place.data()).unwrap();
    let done = output(place.run_args(&pipeline, &["--until-caught-up"]));
    let said = stderr(&done);
    assert!(done.status.success(), "{said}");
    let told = said.matches("holds records that were not cleared").count();
    assert_eq!(told, 1, "{said}");
    assert!(said.contains("put back `keys`"), "{said}");
    let line = stdout(&done);
    let ledger: Value = serde_json::from_str(line.lines().last().unwrap()).unwrap();
    assert_balanced(&ledger);
    assert_eq!(ledger["topic"]["rejected"], 1_000);
    assert_eq!(ledger["topic"]["out"], 1_000);
}

#[test]
fn kill_9_of_falaj_loses_and_doubles_nothing_on_a_cluster() {
    let Some(kafka) = shared() else { return };
    let place = Workplace::new();
    let records = people(&place, 200_000, "kills");
    let pipeline = pipeline(&place, FILE, &kafka.brokers(), "it.kills");
    let mut dice = Dice::new();
    for _ in 0..if long() { 20 } else { 4 } {
        let args = [OFTEN[0], OFTEN[1], "--until-caught-up"];
        let mut child = falaj(place.run_args(&pipeline, &args))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(500 + dice.below(1500)));
        let _ = child.kill();
        child.wait().unwrap();
    }
    let ledger = place.run_to_end(&pipeline, &OFTEN);
    assert_balanced(&ledger);
    assert_eq!(ledger["source"]["in"], 200_000);
    assert_eq!(
        ledger["topic"]["read"].as_u64().unwrap(),
        topic_len(&ledger)
    );
    place.compare(&records, &place.tap(&pipeline));
}

#[test]
fn rejects_are_replayed_onto_a_cluster_once_and_not_while_a_falaj_runs() {
    const ALL: u64 = 30_000;
    let Some(kafka) = shared() else { return };
    let place = Workplace::new();
    let records = replay::lines(1..=ALL, |n| match n {
        n if n % 3 == 0 => replay::record(n, "1.5"),
        n => replay::record(n, "2"),
    });
    place.write("records.ndjson", records.as_bytes());
    let pipeline = replay::measured(&place, replay::FILE);
    let on_cluster = format!("name = \"it.replay\"\nbrokers = \"{}\"", kafka.brokers());
    let text = std::fs::read_to_string(&pipeline).unwrap();
    let text = text.replacen("name = \"messages.cleared\"", &on_cluster, 1);
    assert!(text.contains(&on_cluster));
    std::fs::write(&pipeline, text).unwrap();
    let before = place.run_to_end(&pipeline, &[]);
    assert_eq!(before["source"], replay::source_ledger(ALL, ALL / 3 * 2, 0));
    let mut dice = Dice::new();
    for _ in 0..3 {
        let args = replay::replay_args(&place, &pipeline, &replay::MENDED);
        let mut replaying = falaj(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(3000 + dice.below(2000)));
        let _ = replaying.kill();
        replaying.wait().unwrap();
    }
    let last = replay::replay(&place, &pipeline, &replay::MENDED);
    assert_eq!(
        (&last["rejected_again"], &last["gone"]),
        (&0.into(), &0.into())
    );
    let ledger = replay::rebuilt(&place, &pipeline);
    assert_eq!(ledger["source"], replay::source_ledger(ALL, ALL, ALL / 3));
    replay::each_once(&place, &pipeline, 1..=ALL);
    assert_eq!(replay::rows(&place), replay::from_scratch(&records));

    let running = Running::start(&place.run_args(&pipeline, &replay::MENDED));
    // Its page is there while it still waits for the lease of the run before.
    running.wait_for("/api/v1/status", |status| status["state"] == "running");
    let here = replay::try_replay(&place, &pipeline, &replay::MENDED);
    let elsewhere = place.path().join("elsewhere").display().to_string();
    let path = pipeline.display().to_string();
    let there = output(["rejects", "replay", &path, "--data-dir", &elsewhere]);
    for refused in [here, there] {
        assert_eq!(refused.status.code(), Some(1));
        let said = stderr(&refused);
        assert!(
            said.contains("another falaj is running this pipeline"),
            "{said}"
        );
    }
    let (code, said) = running.terminate();
    assert_eq!(code, Some(0), "{said:?}");
}

/// Records on the topic: those published, and repeats that the decoder told apart.
fn topic_len(ledger: &Value) -> u64 {
    let n = |value: &Value| value.as_u64().unwrap();
    n(&ledger["source"]["published"]) + n(&ledger["topic"]["duplicate"])
}

#[test]
fn kill_9_of_the_broker_and_its_absence_lose_nothing() {
    const RECORDS: u64 = 400_000;
    let Some(kafka) = Kafka::start(&KafkaOptions::default()) else {
        return;
    };
    let place = Workplace::new();
    let records = people(&place, RECORDS, "broker");
    let pipeline = pipeline(&place, FILE, &kafka.brokers(), "it.broker");
    let running = Running::start(&place.run_args(&pipeline, &OFTEN));
    let mut dice = Dice::new();
    for round in 0..if long() { 20 } else { 2 } {
        std::thread::sleep(Duration::from_millis(300 + dice.below(1000)));
        kafka.kill();
        let ended = running.json("/api/v1/status")["ledger"]["source"]["in"] == RECORDS;
        if round == 0 {
            // Whatever it is doing then, it says that it cannot.
            let deadline = Instant::now() + PATIENCE;
            while !ended && running.get("/readyz").status != 503 {
                assert!(Instant::now() < deadline, "it does not notice");
                std::thread::sleep(Duration::from_millis(100));
            }
            let away = if long() { 60 } else { 5 };
            std::thread::sleep(Duration::from_secs(away));
        }
        kafka.restart();
    }
    running.wait_for("/api/v1/status", |status| {
        status["ledger"]["source"]["in"] == RECORDS
            && status["ledger"]["topic"]["out"].as_u64() >= Some(RECORDS)
    });
    let (code, said) = running.terminate();
    assert_eq!(code, Some(0), "{said:?}");
    let ledger = place.run_to_end(&pipeline, &[]);
    assert_balanced(&ledger);
    assert_eq!(
        ledger["topic"]["read"].as_u64().unwrap(),
        topic_len(&ledger)
    );
    place.compare(&records, &place.tap(&pipeline));
}

/// Calls that wait for the cluster without end are left to themselves: a stop is not.
#[test]
fn a_stop_ends_while_the_cluster_is_away() {
    const RECORDS: u64 = 100_000;
    let Some(kafka) = Kafka::start(&KafkaOptions::default()) else {
        return;
    };
    let place = Workplace::new();
    let records = people(&place, RECORDS, "stopped");
    let pipeline = pipeline(&place, FILE, &kafka.brokers(), "it.stopped");
    let running = Running::start(&place.run_args(&pipeline, &OFTEN));
    running.wait_for("/api/v1/status", |status| {
        status["ledger"]["topic"]["out"].as_u64() > Some(10_000)
    });
    kafka.kill();
    std::thread::sleep(Duration::from_secs(5));
    let (code, said) = running.terminate();
    assert_eq!(code, Some(0), "{said:?}");
    kafka.restart();
    assert_balanced(&place.run_to_end(&pipeline, &[]));
    place.compare(&records, &place.tap(&pipeline));
}

#[test]
fn a_topic_that_is_deleted_or_overtaken_is_said_and_nothing_is_guessed() {
    let Some(kafka) = shared() else { return };
    let place = Workplace::new();
    people(&place, 2_000, "deleted");
    let pipeline = pipeline(&place, FILE, &kafka.brokers(), "it.deleted");
    place.run_to_end(&pipeline, &[]);

    // Records are gone that a view asks for again: said before anything is computed.
    let brokers = kafka.brokers();
    let delete = place.write(
        "delete.json",
        br#"{"version":1,"partitions":[{"topic":"it.deleted","partition":0,"offset":-1}]}"#,
    );
    people(&place, 3_000, "deleted");
    let deleted = kafka
        .tool(
            "DeleteRecordsCommand",
            ["--offset-json-file", &delete.display().to_string()],
        )
        .output()
        .unwrap();
    assert!(deleted.status.success(), "{}", stderr(&deleted));
    // All of it had been read, so nothing is missing yet.
    let ledger = place.run_to_end(&pipeline, &[]);
    assert_balanced(&ledger);

    let gone = output(["topic", "delete", "it.deleted", "--brokers", &brokers]);
    assert!(gone.status.success(), "{}", stderr(&gone));
    let args = place.run_args(&pipeline, &["--until-caught-up"]);
    let refused = output(args);
    assert_eq!(refused.status.code(), Some(1));
    let said = stderr(&refused);
    assert!(
        said.contains("it.deleted") && said.contains("falaj reset"),
        "{said}"
    );
}

#[test]
fn retention_that_overtakes_a_stopped_falaj_is_an_error_that_says_so() {
    let Some(kafka) = shared() else { return };
    let place = Workplace::new();
    people(&place, 5_000, "overtaken");
    let pipeline = pipeline(&place, FILE, &kafka.brokers(), "it.overtaken");
    // Killed after publishing and before the views had read all: its checkpoint stands at the start.
    let settings = ["--set", "pipeline.checkpoint=1h"];
    let publish_and_kill = |records: u64| {
        let running = Running::start(&place.run_args(&pipeline, &settings));
        running.wait_for("/api/v1/status", |status| {
            let stages = status["stages"].as_array().into_iter().flatten();
            let mut topic = stages.filter(|stage| stage["name"] == "topic");
            topic.any(|topic| topic["records_total"].as_u64() >= Some(records))
        });
        running.kill();
    };
    publish_and_kill(4_000);
    place.run_to_end(&pipeline, &[]);
    let more = people(&place, 9_000, "overtaken");
    publish_and_kill(3_000);
    let json: String = (0..4)
        .map(|p| format!("{{\"topic\":\"it.overtaken\",\"partition\":{p},\"offset\":-1}}"))
        .collect::<Vec<_>>()
        .join(",");
    let json = format!("{{\"version\":1,\"partitions\":[{json}]}}");
    let delete = place.write("delete.json", json.as_bytes());
    let deleted = kafka
        .tool(
            "DeleteRecordsCommand",
            ["--offset-json-file", &delete.display().to_string()],
        )
        .output()
        .unwrap();
    assert!(deleted.status.success(), "{}", stderr(&deleted));
    assert!(more.is_file());
    let refused = output(place.run_args(&pipeline, &["--until-caught-up"]));
    let said = stderr(&refused);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("retention overtook offset"), "{said}");
}

/// Writes the key that two falajs of one pipeline share, and gives the settings for both.
fn shared_state(place: &Workplace, pipeline: &Path) {
    let text = std::fs::read_to_string(pipeline).unwrap();
    place.write("key", "1f".repeat(32).as_bytes());
    let text = text
        .replacen("[pipeline]\n", "[pipeline]\nstate = \"shared\"\n", 1)
        .replacen("[privacy]\n", "[privacy]\nkey = { file = \"key\" }\n", 1);
    std::fs::write(pipeline, text).unwrap();
}

#[test]
fn a_standby_takes_over_after_kill_9_and_ends_exactly_right() {
    let Some(kafka) = shared() else { return };
    let (place, other) = (Workplace::new(), Workplace::new());
    let records = people(&place, 300_000, "standby");
    let pipeline = pipeline(&place, FILE, &kafka.brokers(), "it.standby");
    shared_state(&place, &pipeline);
    let mut args = place.run_args(&pipeline, &OFTEN);
    let first = Running::start(&args);
    // The second one has a data directory of its own, as on another machine.
    let at = args.iter().position(|arg| arg == "--data-dir").unwrap() + 1;
    args[at] = other.data().display().to_string();
    let log = other.path().join("standby.log");
    let mut second = falaj(&args)
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let said = |part: &str| {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = std::fs::read_to_string(&log).unwrap();
            if text.contains(part) {
                return text;
            }
            assert!(Instant::now() < deadline, "no `{part}` in: {text}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    said("standby: another falaj runs this pipeline");
    first.wait_for("/api/v1/status", |status| {
        status["ledger"]["topic"]["read"].as_u64() > Some(0)
    });
    first.kill();
    let killed = Instant::now();
    said("active: this falaj runs the pipeline now");
    eprintln!(
        "took over {} ms after the kill",
        killed.elapsed().as_millis()
    );
    let text = said("dashboard: http://");
    let address = text.rsplit("dashboard: http://").next().unwrap();
    let address = address.lines().next().unwrap().trim_end_matches('/');
    let address: std::net::SocketAddr = address.parse().unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = crate::harness::get(address, "/api/v1/status").body;
        let status: Value = serde_json::from_str(&status).unwrap();
        let ledger = &status["ledger"];
        if ledger["source"]["in"] == 300_000 && ledger["topic"]["out"] == 300_000 {
            assert_balanced(ledger);
            break;
        }
        assert!(Instant::now() < deadline, "it stays at {status}");
        std::thread::sleep(Duration::from_millis(100));
    }
    std::process::Command::new("kill")
        .arg(second.id().to_string())
        .status()
        .unwrap();
    assert_eq!(second.wait().unwrap().code(), Some(0));
    // Its own store holds everything: what the first had written before was written again.
    let mut tap_args = vec!["tap".to_owned(), pipeline.display().to_string()];
    tap_args.extend(["--at", "topic", "--json", "--data-dir"].map(str::to_owned));
    tap_args.push(other.data().display().to_string());
    let tapped = output(tap_args);
    assert!(tapped.status.success(), "{}", stderr(&tapped));
    let tap = other.write("tap.jsonl", &tapped.stdout);
    other.compare(&records, &tap);
}

const VIEW: &str = "/api/v1/views/users_by_nationality";

/// Waits until a falaj runs the pipeline, at the address it always had, and gives rows.
fn is_active(running: &Running) {
    running.wait_for("/api/v1/status", |status| {
        status["state"] == "running" || status["state"] == "caught up"
    });
    // Its source and its sinks have just begun.
    running.wait_for("/readyz", |ready| ready["ready"] == true);
    running.wait_for(VIEW, |view| view["rows"].is_array());
}

/// Checks that a falaj that waits answers, says what for, and gives no rows.
fn waits(running: &Running, state: &str, why: &str) {
    let status = running.wait_for("/api/v1/status", |status| status["state"] == state);
    let detail = status["detail"].as_str().unwrap();
    assert!(detail.contains(why), "{detail}");
    assert_eq!(running.get("/healthz").status, 200);
    let ready = running.get("/readyz");
    assert_eq!(ready.status, 503);
    let ready: Value = serde_json::from_str(&ready.body).unwrap();
    let reason = &ready["reasons"][0];
    assert_eq!(reason["state"], state);
    assert!(reason["detail"].as_str().unwrap().contains(why), "{reason}");
    let rows = running.get(VIEW);
    assert_eq!(rows.status, 503, "{}", rows.body);
    assert!(rows.body.contains(&format!("{state}: ")), "{}", rows.body);
    assert_eq!(running.get("/api/v1/views").status, 200);
    let page = running.get("/").body;
    assert!(
        page.contains(&format!("{state}, up ")) && page.contains(why),
        "{page}"
    );
}

fn signal(running: &Running, name: &str) {
    let pid = running.pid().to_string();
    let sent = std::process::Command::new("kill")
        .args(["-s", name, &pid])
        .status();
    assert!(sent.unwrap().success());
}

#[test]
fn a_standby_has_a_page_while_it_waits_and_keeps_its_address() {
    let Some(kafka) = shared() else { return };
    let (place, other) = (Workplace::new(), Workplace::new());
    people(&place, 2_000, "page");
    let pipeline = pipeline(&place, FILE, &kafka.brokers(), "it.page");
    shared_state(&place, &pipeline);
    let args = place.run_args(&pipeline, &OFTEN);
    let first = Running::start(&args);
    is_active(&first);
    let at = |option: &str| args.iter().position(|arg| arg == option).unwrap() + 1;
    // As on another machine: a data directory of its own, and the first one's port.
    let mut args = args.clone();
    args[at("--data-dir")] = other.data().display().to_string();
    args[at("--listen")] = first.address.to_string();
    let refused = output(&args);
    assert_eq!(refused.status.code(), Some(1), "{}", stderr(&refused));
    let said = stderr(&refused);
    assert!(said.contains("the port is in use"), "{said}");
    assert!(
        said.contains("a standby on the same machine needs a port of its own"),
        "{said}"
    );

    args[at("--listen")] = "127.0.0.1:0".to_owned();
    let second = Running::start(&args);
    let standby = "another falaj runs this pipeline";
    waits(&second, "standby", standby);
    is_active(&first);

    // The first one sleeps through its session and wakes up as the other one's standby.
    signal(&first, "STOP");
    is_active(&second);
    signal(&first, "CONT");
    waits(&first, "standby", "");
    let (code, said) = second.terminate();
    assert_eq!(code, Some(0), "{said:?}");
    assert_eq!(
        said.iter().filter(|l| l.starts_with("dashboard: ")).count(),
        1,
        "{said:?}"
    );
    is_active(&first);
    let (code, said) = first.terminate();
    assert_eq!(code, Some(0), "{said:?}");
}

#[test]
fn who_waits_for_an_absent_cluster_has_a_page_and_keeps_its_address() {
    let Some(kafka) = Kafka::start(&KafkaOptions::default()) else {
        return;
    };
    let place = Workplace::new();
    people(&place, 2_000, "absent");
    let pipeline = pipeline(&place, FILE, &kafka.brokers(), "it.absent");
    kafka.stop();
    let running = Running::start(&place.run_args(&pipeline, &OFTEN));
    waits(
        &running,
        "waiting",
        &format!("no answer from `{}`", kafka.brokers()),
    );
    kafka.restart();
    is_active(&running);
    let (code, said) = running.terminate();
    assert_eq!(code, Some(0), "{said:?}");
}

#[test]
fn pipelines_side_by_side_on_one_cluster_never_touch_each_other() {
    let Some(kafka) = shared() else { return };
    let places = [Workplace::new(), Workplace::new()];
    let runs: Vec<_> = places
        .iter()
        .zip(["it.left", "it.right"])
        .map(|(place, topic)| {
            let records = people(place, 30_000, topic);
            let pipeline = pipeline(place, FILE, &kafka.brokers(), topic);
            let child = falaj(place.run_args(&pipeline, &["--until-caught-up"]))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            (place, records, pipeline, child)
        })
        .collect();
    for (place, records, pipeline, mut child) in runs {
        assert!(child.wait().unwrap().success());
        place.compare(&records, &place.tap(&pipeline));
    }
}

#[test]
fn check_connect_says_what_differs_and_changes_nothing() {
    let Some(kafka) = shared() else { return };
    let brokers = kafka.brokers();
    let place = Workplace::new();
    let pipeline = pipeline(&place, FILE, &brokers, "it.drift");
    let check = |set: &str| {
        let path = pipeline.display().to_string();
        output(["check", &path, "--connect", "--set", set])
    };
    let before = check("topic.retention=7d");
    assert!(before.status.success(), "{}", stderr(&before));
    assert!(
        stdout(&before).contains("is not there yet"),
        "{}",
        stdout(&before)
    );
    let made = output([
        "topic",
        "create",
        "it.drift",
        "--partitions",
        "4",
        "--retention",
        "1d",
        "--brokers",
        &brokers,
    ]);
    assert!(made.status.success(), "{}", stderr(&made));
    for _ in 0..2 {
        let drifted = check("topic.retention=7d");
        assert!(drifted.status.success(), "{}", stderr(&drifted));
        let said = stderr(&drifted);
        assert!(said.contains("`topic.retention`"), "{said}");
    }
    let same = check("topic.retention=1d");
    assert!(
        !stderr(&same).contains("topic.retention"),
        "{}",
        stderr(&same)
    );
    // Another setting is worth a warning; with another number of partitions a run would fail.
    let other = check("topic.partitions=8");
    assert_eq!(other.status.code(), Some(1));
    let said = stderr(&other);
    assert!(said.contains("error: topic `it.drift`: "), "{said}");
    assert!(said.contains("set `partitions = 4`"), "{said}");
    // What is made beside it is looked at as well.
    for (beside, setting) in [
        ("rejects", "cleanup.policy=compact"),
        ("lease", "retention.ms=1000"),
    ] {
        let name = format!("it.drift.{beside}");
        let args = ["--create", "--topic", &name, "--partitions", "2"];
        let args = [&args[..], &["--config", setting]].concat();
        let made = kafka.tool("TopicCommand", args).output().unwrap();
        assert!(made.status.success(), "{}", stderr(&made));
    }
    let beside = check("topic.retention=1d");
    assert_eq!(beside.status.code(), Some(1), "a run would fail");
    let said = stderr(&beside);
    for told in [
        "`partitions` of topic `it.drift.rejects` is 2 on the cluster, and falaj makes it with 1",
        "`cleanup.policy` of topic `it.drift.rejects` is compact on the cluster, and falaj makes it with delete",
        "error: topic `it.drift`: topic `it.drift.lease` has 2 partitions",
    ] {
        assert!(said.contains(told), "{said}");
    }
    assert!(
        !said.contains("`retention` of topic `it.drift.lease`"),
        "{said}"
    );
    let refused = output(place.run_args(&pipeline, &["--set", "topic.retention=1d"]));
    assert_eq!(refused.status.code(), Some(1), "{}", stderr(&refused));
    let said = stderr(&refused);
    assert!(said.contains("`it.drift.lease` has 2 partitions"), "{said}");
    assert!(
        said.contains("hint: delete topic `it.drift.lease`"),
        "{said}"
    );
    let listed = output(["topic", "list", "--brokers", &brokers]);
    assert!(stdout(&listed).lines().any(|name| name == "it.drift"));
    let described = output([
        "topic",
        "describe",
        "it.drift",
        "--json",
        "--brokers",
        &brokers,
    ]);
    let described: Value = serde_json::from_str(&stdout(&described)).unwrap();
    assert_eq!(described["retention"], "1d");
    let nowhere = output(["topic", "list", "--brokers", "127.0.0.1:1"]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(
        stderr(&nowhere).contains("no answer from `127.0.0.1:1`"),
        "{}",
        stderr(&nowhere)
    );
}

/// An S3-compatible server of its own; ends with the test.
struct Bucket {
    server: std::process::Child,
    endpoint: String,
}

impl Bucket {
    const NAME: &'static str = "falaj-state";

    fn start() -> Option<Self> {
        let requirements = crate::harness::repository().join("tests/s3/requirements.txt");
        let venv = falaj_servers::Venv::of(&requirements)?;
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port().to_string();
        drop(free);
        let server = venv
            .python()
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let bucket = Self {
            server,
            endpoint: format!("http://127.0.0.1:{port}"),
        };
        let deadline = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(&bucket.endpoint["http://".len()..]).is_err() {
            assert!(Instant::now() < deadline, "the S3 server does not start");
            std::thread::sleep(Duration::from_millis(100));
        }
        let made = bucket.ask("PUT");
        assert!(made.contains(" 200 "), "{made}");
        Some(bucket)
    }

    /// One request about the bucket itself.
    fn ask(&self, method: &str) -> String {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(&self.endpoint["http://".len()..]).unwrap();
        let name = Self::NAME;
        write!(
            stream,
            "{method} /{name} HTTP/1.1\r\nHost: s3\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        reply
    }

    fn envs(&self, command: &mut std::process::Command) {
        command
            .env("AWS_ENDPOINT", &self.endpoint)
            .env("AWS_ALLOW_HTTP", "true")
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("AWS_REGION", "us-east-1");
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[test]
fn a_pipeline_goes_on_on_another_machine_from_a_bucket() {
    let Some(kafka) = shared() else { return };
    let Some(bucket) = Bucket::start() else {
        return;
    };
    let places = [Workplace::new(), Workplace::new()];
    let records = people(&places[0], 40_000, "bucket");
    let pipeline = pipeline(&places[0], FILE, &kafka.brokers(), "it.bucket");
    shared_state(&places[0], &pipeline);
    let text = std::fs::read_to_string(&pipeline).unwrap();
    let state = format!("state = \"s3://{}/a/pipeline\"", Bucket::NAME);
    std::fs::write(&pipeline, text.replacen("state = \"shared\"", &state, 1)).unwrap();
    let mut ledgers = Vec::new();
    for place in &places {
        let mut command =
            falaj(place.run_args(&pipeline, &[OFTEN[0], OFTEN[1], "--until-caught-up"]));
        bucket.envs(&mut command);
        let ran = command.output().unwrap();
        assert!(ran.status.success(), "{}", stderr(&ran));
        let text = stdout(&ran);
        let ledger: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_balanced(&ledger);
        ledgers.push(ledger);
    }
    assert_eq!(ledgers[0]["topic"]["read"], 40_000);
    assert_eq!(
        ledgers[0], ledgers[1],
        "nothing was read or published again"
    );
    assert!(bucket.ask("GET").contains(".checkpoint"));
    let args = ["tap", "--at", "topic", "--json", "--data-dir"];
    let mut command = falaj(args);
    command.arg(places[1].data()).arg(&pipeline);
    bucket.envs(&mut command);
    let tapped = command.output().unwrap();
    assert!(tapped.status.success(), "{}", stderr(&tapped));
    let tap = places[1].write("tap.jsonl", &tapped.stdout);
    places[1].compare(&records, &tap);
}
