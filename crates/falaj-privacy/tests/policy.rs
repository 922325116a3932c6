//! What a pipeline file may declare, and where it is told that it may not.

#![expect(
    clippy::too_many_lines,
    clippy::type_complexity,
    reason = "a table of cases is long and wide"
)]

mod common;

use common::{FIELDS, HEAD, compile, policy};
use falaj_privacy::{Code, FieldConfig, PolicyError, PrivacyConfig, PurposeConfig};
use falaj_record::{FieldType, Hint};

const NAT: &str = r#"from = "nat", type = "string", class = "quasi", purpose = "statistics""#;

fn faults(head: &str, lines: &[(&str, &str)], event_time: Option<&str>) -> Vec<PolicyError> {
    compile(head, lines, event_time).expect_err("it must not compile")
}

#[test]
fn the_example_compiles_into_its_relation() {
    let policy = policy(HEAD, FIELDS);
    let columns: Vec<_> = policy
        .schema()
        .fields()
        .iter()
        .map(|field| (field.name.as_str(), field.kind))
        .collect();
    assert_eq!(
        columns,
        [
            ("nat", FieldType::String),
            ("gender", FieldType::String),
            ("age", FieldType::Int),
            ("age_band", FieldType::String),
            ("email_domain", FieldType::String),
        ]
    );
    assert_eq!(policy.inc(), ["nat", "gender", "dob", "email"]);
    assert_eq!((policy.k(), policy.delta_k()), (5, 5));
    assert_eq!(policy.warnings(), []);
    let header = policy.header(&common::keys());
    assert!(header.is_ascii() && header.starts_with(b"1:") && header.len() == 2 + 64 + 1 + 32);
}

#[test]
fn every_error_names_its_place_its_code_and_a_next_step() {
    let field = |line: &'static str| vec![("x", line)];
    let cases: Vec<(Vec<(&str, &str)>, Code, &[&str])> = vec![
        (
            field(r#"from = "nat", type = "string", class = "quasi""#),
            Code::P001,
            &["fields", "x"],
        ),
        (
            field(r#"from = "nat", type = "string", class = "quasi", purpose = "statistic""#),
            Code::P001,
            &["fields", "x", "purpose"],
        ),
        (vec![("Nat", NAT)], Code::P006, &["fields", "Nat"]),
        (vec![("1x", NAT)], Code::P006, &["fields", "1x"]),
        (vec![("_x", NAT)], Code::P006, &["fields", "_x"]),
        (vec![("", NAT)], Code::P006, &["fields", ""]),
        (vec![("pid", NAT)], Code::P006, &["fields", "pid"]),
        (
            vec![("event_time", NAT)],
            Code::P006,
            &["fields", "event_time"],
        ),
        (vec![("records", NAT)], Code::P006, &["fields", "records"]),
        (
            field(r#"from = "a..b", type = "string", class = "quasi", purpose = "statistics""#),
            Code::P006,
            &["fields", "x", "from"],
        ),
        (
            field(r#"from = "login", type = "string", class = "quasi", purpose = "statistics""#),
            Code::P106,
            &["fields", "x", "from"],
        ),
        (
            field(
                r#"from = "id.value", type = "string", class = "national_id", purpose = "statistics", treat = "drop""#,
            ),
            Code::P106,
            &["fields", "x", "from"],
        ),
        (
            field(
                r#"from = "token", type = "string", class = "credential", purpose = "statistics", treat = "drop""#,
            ),
            Code::P101,
            &["fields", "x", "class"],
        ),
        (
            field(r#"from = "name", type = "string", purpose = "statistics""#),
            Code::P102,
            &["fields", "x", "class"],
        ),
        (
            field(
                r#"from = "name", type = "string", class = "direct", purpose = "statistics", treat = "keep""#,
            ),
            Code::P102,
            &["fields", "x", "treat"],
        ),
        (
            field(
                r#"from = "n", type = "int", class = "direct", purpose = "statistics", treat = "clamp(0,9)""#,
            ),
            Code::P102,
            &["fields", "x", "treat"],
        ),
        (
            field(
                r#"from = "l", type = "string", class = "precise_location", purpose = "statistics""#,
            ),
            Code::P102,
            &["fields", "x", "class"],
        ),
        (
            field(r#"from = "h", type = "string", class = "special", purpose = "statistics""#),
            Code::P105,
            &["fields", "x", "class"],
        ),
        (
            field(r#"from = "h", type = "string", class = "national_id", purpose = "statistics""#),
            Code::P105,
            &["fields", "x", "class"],
        ),
        (
            field(
                r#"from = "a", type = "int", class = "quasi", purpose = "statistics", treat = "bandd(10)""#,
            ),
            Code::P007,
            &["fields", "x", "treat"],
        ),
        (
            field(
                r#"from = "a", type = "int", class = "quasi", purpose = "statistics", treat = "prefix(2)""#,
            ),
            Code::P007,
            &["fields", "x", "treat"],
        ),
        (
            field(
                r#"from = "a", type = "string", class = "direct", purpose = "statistics", treat = "pid""#,
            ),
            Code::P009,
            &["fields", "x", "treat"],
        ),
    ];
    for (lines, code, place) in cases {
        let faults = faults(HEAD, &lines, None);
        assert_eq!(faults.len(), 1, "{lines:?}: {faults:?}");
        assert_eq!(faults[0].code(), code, "{lines:?}");
        assert_eq!(faults[0].place, place, "{lines:?}");
        assert!(
            faults[0].hint().is_some_and(|hint| !hint.ends_with('.')),
            "{lines:?}"
        );
        assert!(!faults[0].to_string().ends_with('.'), "{lines:?}");
    }
}

#[test]
fn the_head_is_checked_too() {
    let purpose = "[purpose.p]\nlegal_basis = \"contract\"\nretention = \"1d\"\n";
    let cases: &[(&str, Option<&str>, Code, &[&str])] = &[
        ("[privacy]\nk = 0", None, Code::P008, &["privacy", "k"]),
        (
            "[privacy]\ndelta_k = 10001",
            None,
            Code::P008,
            &["privacy", "delta_k"],
        ),
        (
            "[privacy]\nnever = [\"a..b\"]",
            None,
            Code::P006,
            &["privacy", "never"],
        ),
        (
            "[privacy]\nnever = [\"a.**\"]\n[privacy.subject]\nfrom = \"a.b\"",
            None,
            Code::P106,
            &["privacy", "subject", "from"],
        ),
        (
            "[privacy]\nnever = [\"a.**\"]",
            Some("a"),
            Code::P106,
            &["pipeline", "event_time"],
        ),
        ("", Some(""), Code::P006, &["pipeline", "event_time"]),
        (
            "[purpose.p]\nretention = \"1d\"",
            None,
            Code::P002,
            &["purpose", "p"],
        ),
        (
            "[purpose.p]\nlegal_basis = \"contract\"",
            None,
            Code::P003,
            &["purpose", "p"],
        ),
        (
            "[purpose.p]\nlegal_basis = \"contract\"\nretention = \"0s\"",
            None,
            Code::P003,
            &["purpose", "p"],
        ),
        (
            "[purpose.p]\nlegal_basis = \"consent\"\nretention = \"1d\"",
            None,
            Code::P005,
            &["purpose", "p"],
        ),
        (
            "[purpose.p]\nlegal_basis = \"consent\"\nretention = \"1d\"\nconsent = \"ledger\"",
            None,
            Code::P009,
            &["purpose", "p", "consent"],
        ),
        (
            "[purpose.P]\nlegal_basis = \"contract\"\nretention = \"1d\"",
            None,
            Code::P006,
            &["purpose", "P"],
        ),
    ];
    for (head, event_time, code, place) in cases {
        let faults = faults(head, &[], *event_time);
        assert_eq!(faults.len(), 1, "{head}: {faults:?}");
        assert_eq!(faults[0].code(), *code, "{head}");
        assert_eq!(faults[0].place, *place, "{head}");
    }
    assert!(compile(purpose, &[], Some("a.b")).is_ok());
    let hashed =
        r#"from = "x", type = "string", class = "direct", purpose = "p", treat = "hmac(d)""#;
    let faults = faults(purpose, &[("x", hashed)], None);
    assert_eq!(faults[0].code(), Code::P007);
}

#[test]
fn all_errors_come_at_once() {
    let faults = faults(
        "[privacy]\nk = 0\n[purpose.p]",
        &[("A", r#"from = "", type = "int""#)],
        None,
    );
    let codes: Vec<String> = faults
        .iter()
        .map(|fault| fault.code().to_string())
        .collect();
    assert_eq!(
        codes,
        ["P008", "P002", "P003", "P006", "P006", "P102", "P001"]
    );
}

#[test]
fn what_deserves_a_second_look_is_a_warning() {
    for (head, place) in [
        (
            HEAD.replace("[privacy]", "[privacy]\nk = 1"),
            vec!["privacy", "k"],
        ),
        (
            HEAD.replace("[privacy]", "[privacy]\ndelta_k = 1"),
            vec!["privacy", "delta_k"],
        ),
        (
            HEAD.replace("controller = \"Example Ltd\"", ""),
            vec!["privacy"],
        ),
        (
            HEAD.replace("[privacy.subject]\nfrom = \"email\"", ""),
            vec!["privacy"],
        ),
    ] {
        let policy = policy(&head, FIELDS);
        let places: Vec<_> = policy.warnings().iter().map(|w| w.place.clone()).collect();
        assert_eq!(places, [place]);
    }
    let hashed = r#"from = "nat", type = "string", class = "quasi", purpose = "statistics", treat = "hmac(d)""#;
    assert_eq!(
        policy(HEAD, &[("x", hashed)]).warnings()[0].place,
        ["fields", "x", "from"]
    );
}

#[test]
fn the_hash_changes_with_what_changes_records_and_with_nothing_else() {
    let base = policy(HEAD, FIELDS);
    let dropped = r#"from = "x", type = "string", class = "direct", treat = "drop""#;
    for (head, extra) in [
        (HEAD.replace("[privacy]", "[privacy]\nk = 9"), None),
        (HEAD.replace("30d", "7d"), None),
        (HEAD.replace("\"phone\", ", ""), None),
        (HEAD.to_owned(), Some(("x", dropped))),
    ] {
        let lines: Vec<_> = FIELDS.iter().copied().chain(extra).collect();
        assert_eq!(policy(&head, &lines).hash(), base.hash(), "{head}");
    }
    let others = [
        policy(&HEAD.replace("from = \"email\"", "from = \"name\""), FIELDS),
        policy(&HEAD.replace("\"consent\"", "\"contract\""), FIELDS),
        policy(HEAD, &FIELDS[..4]),
        policy(
            HEAD,
            &[FIELDS[1], FIELDS[0], FIELDS[2], FIELDS[3], FIELDS[4]],
        ),
        std::sync::Arc::new(compile(HEAD, FIELDS, Some("at")).expect("a policy")),
    ];
    let hashes: std::collections::HashSet<_> = others
        .iter()
        .chain([&base])
        .map(|policy| policy.hash())
        .collect();
    assert_eq!(hashes.len(), others.len() + 1);
}

#[test]
fn the_description_says_what_is_kept_and_what_is_dropped() {
    let dropped = (
        "note",
        r#"from = "a.note", type = "string", class = "special", treat = "drop""#,
    );
    let lines: Vec<_> = FIELDS.iter().copied().chain([dropped]).collect();
    let policy = policy(HEAD, &lines);
    let description = serde_json::to_value(policy.description()).expect("JSON");
    assert_eq!(
        description["kept"][4],
        serde_json::json!({
            "name": "email_domain", "from": "email", "type": "string", "class": "direct",
            "treatment": "email_domain", "output_class": "quasi", "purpose": "statistics",
        })
    );
    assert_eq!(
        description["dropped"],
        serde_json::json!([{ "name": "note", "from": "a.note", "class": "special" }])
    );
    assert_eq!(description["subject"], "email");
    assert_eq!(description["purposes"][0]["retention"], "30d");
    assert_eq!(description["policy"], policy.hash());
    assert!(policy.inc().iter().all(|key| key != "a"));
}

#[test]
fn unknown_keys_and_words_are_refused_by_the_file_itself() {
    for line in [
        r#"from = "nat", type = "strng""#,
        r#"from = "nat", type = "string", class = "secret""#,
        r#"from = "nat", type = "string", treatment = "keep""#,
        r#"type = "string""#,
        r#"from = "nat""#,
    ] {
        assert!(
            toml::from_str::<FieldConfig>(&line.replace(", ", "\n")).is_err(),
            "{line}"
        );
    }
    assert!(toml::from_str::<PrivacyConfig>("kk = 5").is_err());
    assert!(toml::from_str::<PrivacyConfig>("k = -1").is_err());
    assert!(toml::from_str::<PurposeConfig>("legal_basis = \"because\"").is_err());
    assert!(toml::from_str::<PurposeConfig>("retention = \"30\"").is_err());
    let schema = serde_json::to_string(&schemars::schema_for!(FieldConfig)).expect("JSON");
    assert!(schema.contains("precise_location") && schema.contains("email_domain"));
}
