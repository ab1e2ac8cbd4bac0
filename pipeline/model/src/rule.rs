//! A rule: what was written in SQL, checked, and ready to be evaluated.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::table::TableKind;
use crate::time::Span;
use crate::value::{Value, Values, headline};
use crate::window::WindowSpec;

/// The column of a result that says how urgent its row is.
pub const SEVERITY: &str = "severity";

/// How urgent an alert is: an attribute of its state, not of its identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Worth a ticket.
    Warning,
    /// Worth waking somebody.
    Critical,
}

/// What happens to an alert whose group stops reporting (contracts.md, Rules).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NoDataPolicy {
    /// The alert stays as it is, marked stale. The default for sample tables.
    Keep,
    /// The alert resolves. The default for event tables.
    Resolve,
    /// Missing data is itself a match.
    Alert,
    /// As if the evaluation had not happened.
    Ignore,
}

/// How a rule is evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleShape {
    /// Once per slide, when the watermark closes the window.
    Window(WindowSpec),
    /// Like a window, over all series that were ever seen: for how long is each silent?
    Presence(WindowSpec),
    /// On arrival of each row.
    Row,
}

impl RuleShape {
    /// Slide and size, if it has them.
    pub fn window(self) -> Option<WindowSpec> {
        match self {
            RuleShape::Window(spec) | RuleShape::Presence(spec) => Some(spec),
            RuleShape::Row => None,
        }
    }
}

/// The options of `WITH (...)`, checked and with their defaults filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RuleOptions {
    /// `severity`; warning by default.
    pub severity: Severity,
    /// `for`: how long the condition must hold before the alert fires; zero by default.
    pub hold: Span,
    /// `for_evaluations`: in how many evaluations one after the other the condition must hold before the alert fires, besides `hold`;
    /// one by default.
    pub hold_evaluations: u32,
    /// `keep_firing_for`: how long the alert goes on firing after the condition stopped holding; zero by default, ten
    /// minutes for row rules on event tables.
    pub keep_firing_for: Span,
    /// `recover_when`: what must hold before the alert resolves, as SQL; without it, that the condition does not hold.
    pub recover_when: Option<String>,
    /// `limit`: alerts that may be alive at once. Of those that come together the worst are taken, and one alert tells how many were
    /// left out.
    pub limit: Option<u32>,
    /// `flap_detection`: whether an alert whose condition comes and goes is held until it has come to rest.
    pub flap_detection: bool,
    /// `no_data`.
    pub no_data: NoDataPolicy,
    /// `delay`: how long windows wait for stragglers; 2 s by default.
    pub delay: Span,
    /// `"label.x"`: static labels, part of the identity.
    pub labels: BTreeMap<String, String>,
    /// `summary`, `description`, `runbook_url` and `"annotation.x"`: templates over labels and values.
    pub annotations: BTreeMap<String, String>,
}

/// A checked rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// Its name; `alertname` of its alerts. State is kept across edits by this name.
    pub name: String,
    /// 16 hex digits: a hash of the normalised SELECT. Part of each event id.
    pub version: String,
    /// The normalised SELECT.
    pub sql: String,
    /// The table that it reads; the first, where it reads several.
    pub table: String,
    /// The other tables of rows over time that it reads.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub joined: Vec<String>,
    /// Whether it is a stream: what it yields are rows of the table of its name, and no alerts.
    #[serde(default)]
    pub stream: bool,
    /// Whether rows of one identity may change what is said of another.
    #[serde(default)]
    pub across: bool,
    /// Whether that table holds samples or events.
    pub table_kind: TableKind,
    /// When it is evaluated.
    pub shape: RuleShape,
    /// The columns that identify an alert, as the SELECT names them.
    pub key: Vec<String>,
    /// Those of them that are maps: each of their entries is a label, but where another column of the key has its name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spread: Vec<String>,
    /// The checked options.
    pub options: RuleOptions,
    /// Whether lower numbers are worse: its condition asks for less than something.
    #[serde(default)]
    pub lower_is_worse: bool,
    /// Where it was written: `file:line:column`.
    pub source: String,
}

impl Rule {
    /// Which of two rows of a result is worse: by its severity, then by its first number. `Greater`: the first.
    pub fn compare(&self, one: &Values, other: &Values) -> Ordering {
        let number = |values: &Values| {
            // No number is not worse than any.
            let number = headline(values).map(|number| if self.lower_is_worse { -number } else { number });
            number.unwrap_or(f64::NEG_INFINITY)
        };
        let severity = |values: &Values| self.severity_of(values);
        severity(one).cmp(&severity(other)).then_with(|| number(one).total_cmp(&number(other)))
    }

    /// How urgent a row of its result is: what its column `severity` says, else the option.
    pub fn severity_of(&self, values: &Values) -> Severity {
        let column = values.iter().find(|(name, _)| name == SEVERITY);
        let said =
            column.and_then(
                |(_, value)| if let Value::Text(word) = value { word.trim().to_lowercase().parse().ok() } else { None },
            );
        said.unwrap_or(self.options.severity)
    }

    /// Every table of rows over time that it reads, each once.
    pub fn tables(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.table.as_str()).chain(self.joined.iter().map(String::as_str))
    }
}

/// A word that is none of the accepted ones.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{found}' is not one of {expected}")]
pub struct UnknownWord {
    /// What was written.
    pub found: String,
    /// What is accepted, comma separated.
    pub expected: &'static str,
}

impl FromStr for Severity {
    type Err = UnknownWord;
    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        match text {
            "info" => Ok(Severity::Info),
            "warning" => Ok(Severity::Warning),
            "critical" => Ok(Severity::Critical),
            found => Err(UnknownWord { found: found.to_string(), expected: "info, warning, critical" }),
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        })
    }
}

impl FromStr for NoDataPolicy {
    type Err = UnknownWord;
    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        match text {
            "keep" => Ok(NoDataPolicy::Keep),
            "resolve" => Ok(NoDataPolicy::Resolve),
            "alert" => Ok(NoDataPolicy::Alert),
            "ignore" => Ok(NoDataPolicy::Ignore),
            found => Err(UnknownWord { found: found.to_string(), expected: "keep, resolve, alert, ignore" }),
        }
    }
}
