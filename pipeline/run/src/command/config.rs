//! `tidewatch config`: what is in force.

use std::path::PathBuf;

use super::feeding::log_sources;
use super::telling;
use crate::config::{Config, show};
use crate::dimension_files;
use crate::failure::Failure;

/// Prints the configuration that `up` would run with, as a file that sets it, and reads the files that it names, but for rules, which
/// `check` reads.
///
/// # Errors
/// Every file with which `up` would not start.
pub fn run(config: &Config) -> Result<(), Failure> {
    print!("{}", show(config));
    let routes = |path: &PathBuf| telling::routes(path).map(drop);
    let found = [
        log_sources(config).map(drop),
        config.alerting_file.as_ref().map_or(Ok(()), routes),
        dimension_files::load(&config.tables_files).map(drop).map_err(Failure::usage),
        telling::access(config).map(drop),
        telling::tls(config).map(drop),
    ];
    let problems: Vec<String> = found.into_iter().filter_map(|found| Some(found.err()?.message)).collect();
    if problems.is_empty() { Ok(()) } else { Err(Failure::usage(problems.join("\n"))) }
}
