//! The rule pack that ships with the binary: one alert a file, a test file beside each; and views, in the same way.

use crate::dimension::Dimensions;
use crate::settings::Settings;
use crate::statement::{lower_first, read_statements};
use crate::views::{View, view};

/// One bundled file.
#[derive(Debug, Clone, Copy)]
pub struct RuleFile {
    /// Path within this crate, `rules/host/host_cpu_saturated.sql`.
    pub path: &'static str,
    /// The `CREATE ALERT`, or the `CREATE VIEW`.
    pub sql: &'static str,
    /// Its tests, in YAML.
    pub test: &'static str,
}

impl RuleFile {
    /// The name of the alert, which is the file's.
    pub fn rule_name(&self) -> &'static str {
        let name = self.path.rsplit('/').next().unwrap_or(self.path);
        name.strip_suffix(".sql").unwrap_or(name)
    }

    /// The first sentence of the comment above its statement, to go on with.
    pub fn meaning(&self) -> String {
        let comment = self.sql.lines().map_while(|line| line.strip_prefix("--")).map(str::trim);
        let comment = comment.collect::<Vec<_>>().join(" ");
        lower_first(comment.split_once(". ").map_or(comment.as_str(), |(first, _)| first).trim_end_matches('.'))
    }
}

/// Every rule file that runs wherever nobody says otherwise, by path.
pub const FILES: &[RuleFile] = include!(concat!(env!("OUT_DIR"), "/rules.rs"));

/// Every file of the pack, by path: rules for those who have the rows.
pub const PACK: &[RuleFile] = include!(concat!(env!("OUT_DIR"), "/pack.rs"));

/// Every bundled view, by path.
pub const VIEWS: &[RuleFile] = include!(concat!(env!("OUT_DIR"), "/views.rs"));

/// The bundled views whose names no table has.
pub(crate) fn views(dimensions: &Dimensions) -> Vec<View> {
    let settings = Settings::of(dimensions);
    let written = VIEWS.iter().flat_map(|file| read_statements(file.path, file.sql, &settings).views);
    let views = written.filter_map(|written| view(&written, &[], dimensions).ok());
    views.map(View::into_bundled).collect()
}
