//! The borders between the crates, and the lock file.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// What each crate may import of ours (docs/architecture.md). Imports run upward only; siblings never import each other.
const ALLOWED: [(&str, &[&str]); 17] = [
    ("tidewatch-model", &[]),
    ("tidewatch-flow", &["model"]),
    ("tidewatch-sql", &["model"]),
    ("tidewatch-collect", &["model"]),
    ("tidewatch-nvml-stub", &[]),
    ("tidewatch-log", &["model"]),
    ("tidewatch-ingest", &["model"]),
    ("tidewatch-kafka", &["model"]),
    ("tidewatch-lake", &["model"]),
    ("tidewatch-notifiers", &["model"]),
    ("tidewatch-postgres", &[]),
    ("tidewatch-promql", &[]),
    ("tidewatch-serve", &["model"]),
    ("tidewatch-agent", &["model", "collect", "log", "kafka"]),
    (
        "tidewatch",
        &[
            "model",
            "flow",
            "sql",
            "collect",
            "ingest",
            "log",
            "kafka",
            "lake",
            "notifiers",
            "postgres",
            "promql",
            "serve",
        ],
    ),
    ("tidewatch-tests", &[]),
    ("tidewatch-benches", &["model", "flow", "sql", "collect", "log", "lake", "tests"]),
];

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(ROOT)
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout).expect("cargo metadata speaks JSON")
}

#[test]
fn imports_run_upward_only() {
    let metadata = metadata();
    let mut seen = BTreeSet::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        seen.insert(name.to_string());
        let (_, allowed) = ALLOWED
            .iter()
            .find(|(crate_name, _)| *crate_name == name)
            .unwrap_or_else(|| panic!("{name} is not in the table"));
        let ordinary =
            package["dependencies"].as_array().unwrap().iter().filter(|dependency| dependency["kind"].is_null());
        for dependency in ordinary.filter_map(|dependency| dependency["name"].as_str()) {
            if let Some(short) = dependency.strip_prefix("tidewatch-") {
                assert!(allowed.contains(&short), "{name} imports {dependency}");
            }
            let heavy = ["datafusion", "axum", "ureq", "parquet", "rdkafka"].contains(&dependency);
            let may = match dependency {
                "datafusion" => ["tidewatch-sql", "tidewatch-postgres"].contains(&name),
                "axum" => name == "tidewatch-serve",
                "rdkafka" => ["tidewatch-kafka", "tidewatch-benches"].contains(&name),
                "ureq" => {
                    ["tidewatch-notifiers", "tidewatch-serve", "tidewatch-collect", "tidewatch-benches"].contains(&name)
                }
                "parquet" => ["tidewatch-lake", "tidewatch", "tidewatch-benches"].contains(&name),
                _ => true,
            };
            assert!(!heavy || may, "{name} imports {dependency}");
        }
    }
    assert_eq!(seen.len(), ALLOWED.len(), "{seen:?}");
}

#[test]
fn what_must_be_one_is_one() {
    let text = std::fs::read_to_string(Path::new(ROOT).join("Cargo.lock")).unwrap();
    let lock: toml::Table = text.parse().unwrap();
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in lock["package"].as_array().unwrap() {
        let field = |name: &str| package[name].as_str().unwrap().to_string();
        versions.entry(field("name")).or_default().insert(field("version"));
    }
    let one = |name: &str| {
        name.starts_with("arrow")
            || name.starts_with("datafusion")
            || ["parquet", "object_store", "sqlparser", "tokio", "serde", "chrono"].contains(&name)
    };
    for (name, versions) in versions.iter().filter(|(name, _)| one(name)) {
        assert_eq!(versions.len(), 1, "{name}: {versions:?}");
    }
    assert!(versions.contains_key("arrow") && versions.contains_key("datafusion"));
}

#[test]
fn versions_stand_in_one_place() {
    for package in metadata()["packages"].as_array().unwrap() {
        let manifest = std::fs::read_to_string(package["manifest_path"].as_str().unwrap()).unwrap();
        let table: toml::Table = manifest.parse().unwrap();
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (name, how) in table.get(section).and_then(toml::Value::as_table).into_iter().flatten() {
                assert!(how.get("workspace").is_some(), "{}: {name} is not the workspace's", package["name"]);
            }
        }
    }
}
