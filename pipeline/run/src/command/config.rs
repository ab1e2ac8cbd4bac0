//! `tidewatch config`: what is in force.

use super::feeding::log_sources;
use super::telling;
use crate::config::{Config, show};
use crate::failure::Failure;
use crate::{alerting_file, dimension_files};

/// Prints the configuration that `up` would run with, as a file that sets it, and reads the files that it names, but for rules, which
/// `check` reads.
///
/// # Errors
/// Every file with which `up` would not start.
pub fn run(config: &Config) -> Result<(), Failure> {
    print!("{}", show(config));
    let routes = match &config.alerting_file {
        None => Ok(()),
        Some(path) => alerting_file::load(path).and_then(|(file, faults)| {
            let lines = faults.iter().map(|fault| format!("{}:{fault}", path.display())).collect::<Vec<_>>();
            file.map(drop).ok_or_else(|| lines.join("\n"))
        }),
    };
    let said = |failure: Failure| failure.message;
    let found = [
        log_sources(config).map(drop).map_err(said),
        routes,
        dimension_files::load(&config.tables_files).map(drop),
        telling::access(config).map(drop).map_err(said),
        telling::tls(config).map(drop).map_err(said),
    ];
    let problems: Vec<String> = found.into_iter().filter_map(Result::err).collect();
    if problems.is_empty() { Ok(()) } else { Err(Failure::usage(problems.join("\n"))) }
}
