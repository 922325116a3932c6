//! What a person reads: messages, hints, exit codes.

use std::path::{Path, PathBuf};

use crate::harness::{Workplace, output, repository, stderr, stdout};

fn example() -> String {
    repository()
        .join("examples/random-users/falaj.toml")
        .display()
        .to_string()
}

/// Exit code and stderr of `falaj check` on the example with `from` replaced by `to`, the
/// temporary folder cut from the paths.
fn check(from: &str, to: &str) -> (Option<i32>, String) {
    let place = Workplace::new();
    let text = std::fs::read_to_string(example()).unwrap();
    assert!(text.contains(from), "the example has no `{from}`");
    let path = place.write("falaj.toml", text.replacen(from, to, 1).as_bytes());
    let checked = output(["check", &path.display().to_string()]);
    let folder = format!("{}/", place.path().display());
    (checked.status.code(), stderr(&checked).replace(&folder, ""))
}

#[test]
fn the_example_is_in_order() {
    let checked = output(["check", &example()]);
    assert_eq!(checked.status.code(), Some(0), "{}", stderr(&checked));
    let text = stdout(&checked);
    assert!(text.contains("email_domain <- email"), "{text}");
    assert!(text.lines().last() == Some("ok"), "{text}");
    let checked = output(["check", &example(), "--json"]);
    let plan: serde_json::Value = serde_json::from_str(&stdout(&checked)).unwrap();
    assert_eq!(plan["views"].as_array().unwrap().len(), 4);
    let explained = output(["check", &example(), "--explain", "P106"]);
    assert_eq!(explained.status.code(), Some(0), "{}", stderr(&explained));
    assert!(
        stdout(&explained).contains("never"),
        "{}",
        stdout(&explained)
    );
}

#[test]
fn every_mistake_is_named_with_its_place_and_a_next_step() {
    let cases = [
        // (what is replaced, by what, what must be said, what must be hinted)
        (
            "retention  = \"7d\"",
            "reteniton = \"7d\"",
            "unknown key `reteniton` in [topic] (falaj.toml:17:1)",
            "did you mean `retention`?",
        ),
        (
            "[source.http]",
            "[source.htpp]",
            "unknown key `htpp` in [source]",
            "did you mean `http`?",
        ),
        (
            "type = \"string\", class = \"quasi\"",
            "type = \"string\", class = \"quasy\"",
            "unknown value `quasy` in [fields.nat.class]",
            "did you mean `quasi`?",
        ),
        ("k = 5 ", "k = \"five\" ", "(falaj.toml:22:5)", ""),
        ("every   = \"5s\"", "every = 5", "(falaj.toml:11:9)", ""),
        (
            "every   = \"5s\"",
            "every = \"5 parsecs\"",
            "is not a length of time",
            "",
        ),
        (
            "SELECT nat, count(*) AS users FROM records GROUP BY nat",
            "SELEC nat FROM records",
            "(falaj.toml:43:8)",
            "hint:",
        ),
        (
            "SELECT nat, count(*)",
            "SELECT phone, count(*)",
            "(falaj.toml:43:15)",
            "hint:",
        ),
        (
            "FROM records GROUP BY window",
            "FROM records GROUP BY windw",
            "(falaj.toml:48:23)",
            "hint:",
        ),
        ("from = \"nat\", ", "from = \"phone\", ", "phone", "hint:"),
        (
            "from = \"nat\", ",
            "from = \"login.uuid\", ",
            "login",
            "hint:",
        ),
        (
            "from = \"nat\",     type = \"string\", class = \"quasi\"",
            "from = \"name.first\", type = \"string\", class = \"direct\"",
            "[P102]",
            "hint:",
        ),
        (
            "type = \"bar\"\nx = \"nat\"",
            "type = \"bar\"\nx = \"nta\"",
            "nta",
            "hint: did you mean `nat`",
        ),
        (
            "views = [\"*\"]",
            "views = [\"usres\"]",
            "there is no view `usres`",
            "did you mean `users`?",
        ),
        ("type  = \"sqlite\"", "type  = \"sqlight\"", "sqlight", ""),
        (
            "name = \"random-users\"",
            "name = \"../etc\"",
            "is no name for a pipeline (falaj.toml:5:8)",
            "hint:",
        ),
        (
            "brokers    = \"embedded\"",
            "brokers = \"k\"",
            "`k` is no address: it has no port",
            "hint:",
        ),
        ("partitions = 4", "partitions = 0", "partitions", "hint:"),
        ("[fields]", "[fields", "falaj.toml:35", ""),
    ];
    for (from, to, said, hinted) in cases {
        let (code, text) = check(from, to);
        assert_eq!(code, Some(2), "{to}: {text}");
        assert!(text.starts_with("error: "), "{to}: {text}");
        assert!(text.contains(said), "{to}: `{said}` is not in: {text}");
        assert!(text.contains(hinted), "{to}: `{hinted}` is not in: {text}");
    }
}

#[test]
fn a_missing_file_a_wrong_option_and_a_missing_command_are_usage_errors() {
    for args in [
        &["run", "nothing.toml"][..],
        &["run"],
        &["fly"],
        &["check", "x", "--nothing"],
        &[],
    ] {
        let run = output(args);
        assert_eq!(run.status.code(), Some(2), "{args:?}: {}", stderr(&run));
        assert!(!stderr(&run).is_empty(), "{args:?}");
    }
    let run = output(["run", &example(), "--until-caught-up"]);
    assert_eq!(run.status.code(), Some(2));
    assert!(
        stderr(&run).contains("needs a source that ends"),
        "{}",
        stderr(&run)
    );
    let run = output(["run", &example(), "--rebuild", "usres"]);
    assert_eq!(run.status.code(), Some(2), "{}", stderr(&run));
}

/// A pipeline that reads one record of a file.
fn over_one_record(place: &Workplace) -> PathBuf {
    place.write(
        "in.ndjson",
        b"{\"nat\":\"DE\",\"email\":\"a@example.com\"}\n",
    );
    place.pipeline("[source.file]\npath = \"in.ndjson\"")
}

#[test]
fn a_port_in_use_and_an_unusable_data_directory_fail_with_a_hint() {
    let place = Workplace::new();
    let pipeline = over_one_record(&place);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (pipeline, data) = (
        pipeline.display().to_string(),
        place.data().display().to_string(),
    );
    let run = output(["run", &pipeline, "--listen", &address, "--data-dir", &data]);
    assert_eq!(run.status.code(), Some(1));
    let said = stderr(&run);
    assert!(said.contains("in use") && said.contains("hint:"), "{said}");

    let file = place.write("a-file", b"");
    let below = file.join("data").display().to_string();
    let run = output([
        "run",
        &pipeline,
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        &below,
    ]);
    assert_eq!(run.status.code(), Some(1));
    let said = stderr(&run);
    assert!(
        said.contains("data directory") && said.contains("hint:"),
        "{said}"
    );
}

#[test]
fn init_writes_a_file_that_passes_and_never_writes_over_one() {
    let place = Workplace::new();
    let folder = place.path().join("new").display().to_string();
    let init = output(["init", &folder]);
    assert_eq!(init.status.code(), Some(0), "{}", stderr(&init));
    let file = Path::new(&folder).join("falaj.toml");
    assert!(std::fs::read_to_string(&file).unwrap().contains("k = 10"));
    let checked = output(["check", &file.display().to_string()]);
    assert_eq!(checked.status.code(), Some(0), "{}", stderr(&checked));
    let again = output(["init", &folder]);
    assert_eq!(again.status.code(), Some(1));
    assert!(
        stderr(&again).contains("there already"),
        "{}",
        stderr(&again)
    );
}

/// Under another key every record of the topic would be somebody else's.
#[test]
fn a_lost_key_is_told_and_no_other_one_made() {
    let place = Workplace::new();
    let pipeline = over_one_record(&place);
    place.run_to_end(&pipeline, &[]);
    let (key, kept) = (place.data().join("keys/master"), place.path().join("kept"));
    std::fs::rename(&key, &kept).unwrap();
    for _ in 0..2 {
        let run = output(place.run_args(&pipeline, &["--until-caught-up"]));
        let said = stderr(&run);
        assert_eq!(run.status.code(), Some(1), "{said}");
        assert!(
            said.contains("keys/master") && said.contains("hint: restore it"),
            "{said}"
        );
        assert!(!key.exists(), "another key was made");
    }
    std::fs::rename(&kept, &key).unwrap();
    place.run_to_end(&pipeline, &[]);
}

#[test]
fn reset_forgets_everything_and_asks_first() {
    let place = Workplace::new();
    let pipeline = over_one_record(&place);
    place.run_to_end(&pipeline, &[]);
    let foreign = place.data().join("notes.txt");
    std::fs::write(&foreign, "not falaj's").unwrap();
    let (pipeline, data) = (
        pipeline.display().to_string(),
        place.data().display().to_string(),
    );
    let refused = output(["reset", &pipeline, "--data-dir", &data]);
    assert_eq!(refused.status.code(), Some(2), "it did not ask");
    assert!(place.sqlite().is_file());
    let done = output(["reset", &pipeline, "--data-dir", &data, "--yes"]);
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    assert!(!place.sqlite().exists());
    assert!(foreign.is_file(), "a file that is not falaj's was removed");
}

/// Rows in a store outlive topic and key: they are named, and not mixed with those of the next life.
#[test]
fn reset_names_what_is_left_elsewhere_and_the_next_run_does_not_add_to_it() {
    let place = Workplace::new();
    let line = |name: &str| format!("{{\"nat\":\"DE\",\"email\":\"{name}@example.com\"}}\n");
    let records = place.write("in.ndjson", (line("a") + &line("b")).as_bytes());
    let pipeline = place.pipeline("[source.file]\npath = \"in.ndjson\"");
    let elsewhere = ["--set", "sinks.local.path=elsewhere.sqlite"];
    let store = place.path().join("elsewhere.sqlite");
    place.run_to_end(&pipeline, &elsewhere);
    let (file, data) = (
        pipeline.display().to_string(),
        place.data().display().to_string(),
    );
    let mut reset = vec!["reset", &file, "--data-dir", &data, "--yes"];
    reset.extend(elsewhere);
    let done = output(reset);
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    let said = stderr(&done);
    assert!(
        said.contains("elsewhere.sqlite") && said.contains("sink `local`"),
        "{said}"
    );
    assert!(said.contains("--rebuild '*'"), "{said}");

    let mut run = elsewhere.to_vec();
    run.push("--until-caught-up");
    let refused = output(place.run_args(&pipeline, &run));
    assert_eq!(refused.status.code(), Some(1), "it added to them");
    let said = stderr(&refused);
    assert!(
        said.contains("rows that this pipeline did not write"),
        "{said}"
    );
    assert!(said.contains("--rebuild"), "{said}");

    std::fs::write(&records, line("c")).unwrap();
    run.extend(["--rebuild", "*"]);
    let done = output(place.run_args(&pipeline, &run));
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    crate::harness::compare(&records, &place.tap(&pipeline), &store);
}

#[test]
fn the_schema_in_the_docs_is_the_one_that_falaj_prints() {
    let printed = stdout(&output(["schema"]));
    let schema: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert!(schema["properties"]["privacy"].is_object());
    let kept = repository().join("docs/reference/pipeline.schema.json");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&kept, &printed).unwrap();
    }
    let kept = std::fs::read_to_string(kept).unwrap_or_default();
    assert!(
        kept == printed,
        "docs/reference/pipeline.schema.json is old: run the test with UPDATE=1"
    );
}

#[test]
fn completions_are_there_for_the_common_shells() {
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(&output(["completions", shell]));
        assert!(script.contains("random-user"), "{shell}");
    }
}

/// `falaj check --connect` of a pipeline that reads nothing, with further arguments.
fn doctor(place: &Workplace, more: &[&str]) -> std::process::Output {
    let pipeline = place.pipeline("[source.file]\npath = \"people.ndjson\"");
    let (pipeline, data) = (pipeline.display().to_string(), place.data());
    let mut args = vec!["check", &pipeline, "--connect", "--data-dir"];
    let data = data.display().to_string();
    args.push(&data);
    args.extend(more);
    output(args)
}

#[test]
fn the_doctor_looks_at_stores_and_makes_nothing() {
    let place = Workplace::new();
    let before = doctor(&place, &[]);
    assert_eq!(before.status.code(), Some(0), "{}", stderr(&before));
    let text = stdout(&before);
    assert!(text.contains(
        "ok\nconnect   topic `messages` at embedded: there is no broker to connect to, ok\n"
    ));
    assert!(text.contains("the data directory is not there yet: `falaj run` makes it, ok\n"));
    assert!(!place.data().exists());

    place.write("people.ndjson", b"");
    let pipeline = place.path().join("falaj.toml");
    place.run_to_end(&pipeline, &[]);
    let after = doctor(&place, &["--json"]);
    assert_eq!(after.status.code(), Some(0), "{}", stderr(&after));
    let plan: serde_json::Value = serde_json::from_str(&stdout(&after)).unwrap();
    let [topic, sink] = plan["connect"].as_array().unwrap().as_slice() else {
        panic!("{plan}")
    };
    assert_eq!(
        (&topic["part"], &topic["name"]),
        (&"topic".into(), &"messages".into())
    );
    assert_eq!(
        (&sink["part"], &sink["name"]),
        (&"sink".into(), &"local".into())
    );
    assert_eq!(sink["place"], place.sqlite().display().to_string());
    assert!(sink["server"].as_str().unwrap().starts_with("SQLite 3."));
    assert_eq!(
        (&sink["warnings"], &sink["errors"]),
        (&serde_json::json!([]), &serde_json::json!([]))
    );
}

#[test]
fn the_doctor_tells_everything_that_is_wrong_at_once() {
    let place = Workplace::new();
    place.write("letter.txt", &b"Dear all, this is no database. ".repeat(64));
    let wrong = [
        "--set",
        "topic.brokers=127.0.0.1:1",
        "--set",
        "sinks.homeless={type='sqlite',path='nowhere/views.sqlite'}",
        "--set",
        "sinks.letter={type='sqlite',path='letter.txt'}",
    ];
    let told = doctor(&place, &wrong);
    assert_eq!(told.status.code(), Some(1));
    let (out, err) = (stdout(&told), stderr(&told));
    for what in [
        "topic `messages` at 127.0.0.1:1: 1 error",
        "sink `homeless`",
        "sink `letter`",
    ] {
        assert!(out.contains(&format!("connect   {what}")), "{what}: {out}");
    }
    let errors: Vec<&str> = err
        .lines()
        .filter(|line| line.starts_with("error: "))
        .collect();
    assert_eq!(errors.len(), 3, "{err}");
    for (error, what) in errors.iter().zip([
        "topic `messages`: no answer from `127.0.0.1:1`",
        "sink `homeless`: cannot open the store",
        "sink `letter`: ",
    ]) {
        assert!(error["error: ".len()..].starts_with(what), "{error}");
    }
    assert_eq!(
        err.lines()
            .filter(|line| line.starts_with("hint: "))
            .count(),
        3,
        "{err}"
    );
    let mut as_json = wrong.to_vec();
    as_json.push("--json");
    let told = doctor(&place, &as_json);
    assert_eq!(told.status.code(), Some(1));
    let plan: serde_json::Value = serde_json::from_str(&stdout(&told)).unwrap();
    let found = plan["connect"].as_array().unwrap();
    let errors = found.iter().map(|f| f["errors"].as_array().unwrap().len());
    assert_eq!(errors.collect::<Vec<_>>(), [1, 0, 1, 1]);
    assert!(found[2]["errors"][0]["hint"].is_string());
}
