//! The agent reads log files: what they say comes out as rows, and a file of sources with faults stops the start.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

fn once(folder: &Path, sources: &str) -> Output {
    let file = folder.join("logs.toml");
    std::fs::write(&file, sources).unwrap();
    let mut agent = Command::new(env!("CARGO_BIN_EXE_tidewatch-agent"));
    let nothing = ["--path.procfs", "--path.sysfs"].map(|flag| [flag.into(), folder.join("none").into_os_string()]);
    agent.args(["--once", "--format", "json", "--host", "n1", "--logs"]).arg(file).args(nothing.concat());
    agent.output().unwrap()
}

#[test]
fn lines_become_rows_of_the_log_and_of_training() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("rank3.log");
    std::fs::write(&log, "WARNING slow\n iteration 7/ 9 | elapsed time per iteration (ms): 250.0 | lm loss: nan |\n")
        .unwrap();
    let sources = format!(
        "[[source]]\nname = \"train\"\npaths = [\"{0}/*.log\"]\npath_regex = 'rank(?P<rank>\\d+)'\nfrom = \"start\"\nmultiline = \"none\"\nlabels = {{ job = \"j\" }}\n[[source.extract]]\npreset = \"megatron\"\n",
        folder.path().display()
    );
    let output = once(folder.path(), &sources);
    let rows: Vec<serde_json::Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let step = rows.iter().find(|row| row["step"] == 7).unwrap();
    assert_eq!((step["job"].as_str(), step["rank"].as_i64()), (Some("j"), Some(3)), "{rows:?}");
    assert_eq!((step["host"].as_str(), step["step_seconds"].as_f64()), (Some("n1"), Some(0.25)));
    let line = rows.iter().find(|row| row["message"] == "WARNING slow").unwrap();
    assert_eq!((line["level"].as_str(), line["fields"]["rank"].as_str()), (Some("warning"), Some("3")));
}

#[test]
fn a_file_of_sources_with_faults_stops_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let output = once(folder.path(), "[[source]]\nname = \"a\"\npaths = [\"a.log\"]\nform = \"end\"\n");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("logs.toml:3:9: paths: 'a.log': expected a path from the root"), "{said}");
    assert!(said.contains("logs.toml:4:1: unknown key 'form'"), "{said}");
}
