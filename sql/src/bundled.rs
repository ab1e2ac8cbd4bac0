//! The rule pack that ships with the binary: one alert a file, a test file beside each.

/// One bundled rule file.
#[derive(Debug, Clone, Copy)]
pub struct RuleFile {
    /// Path within this crate, `rules/host/host_cpu_saturated.sql`.
    pub path: &'static str,
    /// The `CREATE ALERT`.
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
}

/// Every bundled rule file, by path.
pub const FILES: &[RuleFile] = include!(concat!(env!("OUT_DIR"), "/bundled.rs"));
