//! What the manifests must say: stages do not know each other.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::harness::repository;

/// Crates that every stage may depend on.
const SHARED: [&str; 2] = ["falaj-record", "falaj-privacy"];

fn packages() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--offline",
        ])
        .current_dir(repository())
        .output()
        .expect("cargo runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo's JSON");
    let normal = |package: &Value| {
        package["dependencies"]
            .as_array()
            .expect("dependencies")
            .iter()
            .filter(|d| d["kind"].is_null())
            .map(|d| d["name"].as_str().expect("a name").to_owned())
            .collect()
    };
    let packages = metadata["packages"].as_array().expect("packages");
    packages
        .iter()
        .map(|p| (p["name"].as_str().expect("a name").to_owned(), normal(p)))
        .collect()
}

#[test]
fn stages_never_depend_on_each_other() {
    let packages = packages();
    assert!(packages.len() >= 10, "the workspace has its crates");
    for (name, dependencies) in &packages {
        let own: Vec<&str> = dependencies
            .iter()
            .map(String::as_str)
            .filter(|d| d.starts_with("falaj-") && !SHARED.contains(d))
            .collect();
        let allowed: &[&str] = match name.as_str() {
            "falaj" | "falaj-bench" => continue,
            "falaj-broker" | "falaj-topic" => &["falaj-log"],
            _ => &[],
        };
        assert!(
            own.iter().all(|d| allowed.contains(d)),
            "`{name}` depends on {own:?}"
        );
    }
}

#[test]
fn the_gate_and_the_words_do_no_input_and_output() {
    let packages = packages();
    for name in SHARED {
        for banned in ["tokio", "reqwest", "axum", "rusqlite", "datafusion"] {
            assert!(
                !packages[name].contains(banned),
                "`{name}` depends on `{banned}`"
            );
        }
    }
    for (name, dependencies) in &packages {
        if name != "falaj-views" {
            assert!(
                !dependencies.iter().any(|d| d.starts_with("datafusion")),
                "`{name}` names DataFusion; only falaj-views may"
            );
        }
    }
}
