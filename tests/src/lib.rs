//! Tests of the workspace as a whole: which crate may import which, and one version of each thing that must be one. And
//! what several crates' tests need: a real Apache Kafka.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

pub mod kafka;
