//! Tests of the workspace as a whole: which crate may import which, and one version of each thing that must be one. And
//! what several crates' tests need: a real Apache Kafka.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

pub mod kafka;

/// Whether a program that a test needs is there. Where `CI` is set it must be.
///
/// # Panics
/// It is not there, and `CI` is set.
pub fn has_tool(name: &str) -> bool {
    let found =
        std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(name).exists()));
    assert!(found || std::env::var_os("CI").is_none(), "tests with {name} are mandatory here, and it is not installed");
    if !found {
        eprintln!("NOT RUN: this test needs {name}");
    }
    found
}
