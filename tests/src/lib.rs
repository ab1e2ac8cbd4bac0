//! Tests of the workspace as a whole: which crate may import which, and one version of each thing that must be one. And
//! what several crates' tests need: a real Apache Kafka.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

pub mod kafka;
pub mod peers;

use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder of everything built: of a test in `<target>/<profile>/deps/`, or of a benchmark in `<target>/<profile>/`.
///
/// # Panics
/// The system does not say where this process's file is.
pub fn target_folder() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let is_test = program.parent().is_some_and(|folder| folder.ends_with("deps"));
    program.ancestors().nth(if is_test { 3 } else { 2 }).unwrap().to_path_buf()
}

/// Asks DuckDB, the real one, as its Python package has it: the first row of the last statement, a text per column.
/// `.ci/install` puts it below the target folder; a `python3` that has it will do too. Where `CI` is set it must be there.
///
/// # Panics
/// The statement fails; or DuckDB is not there, and `CI` is set.
pub fn duckdb(folder: &Path, sql: &str) -> Option<Vec<String>> {
    const ASK: &str = "import duckdb, sys\nduckdb.execute('SET enable_progress_bar = false')\nfor value in duckdb.execute(sys.argv[1]).fetchone(): print(value)";
    let python = peers::python("duckdb")?;
    let output = Command::new(&python).args(["-c", ASK, sql]).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap().lines().map(str::to_string).collect())
}

/// Whether a program that a test needs is there. Where `CI` is set it must be.
///
/// # Panics
/// It is not there, and `CI` is set.
pub fn has_tool(name: &str) -> bool {
    let found =
        std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(name).exists()));
    must_be_there(name, found)
}

fn must_be_there(name: &str, found: bool) -> bool {
    assert!(found || std::env::var_os("CI").is_none(), "tests with {name} are mandatory here, and it is not installed");
    if !found {
        eprintln!("NOT RUN: this test needs {name}");
    }
    found
}
