//! `tidewatch config`: what is in force.

use crate::config::{Config, show};

/// Prints the configuration that `up` would run with, as a file that sets it.
pub fn run(config: &Config) {
    print!("{}", show(config));
}
