//! How rules are evaluated, what they share, and what that holds in memory.

use std::fmt;

use serde::Serialize;
use tidewatch_model::Span;

use crate::shared::ordered::Shared;

/// How one rule is evaluated. As text it is what `tidewatch explain` prints; as JSON, an object with these fields.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// The rule.
    pub rule: String,
    /// The tables of rows over time that it reads.
    pub table: String,
    /// `shared`: on windows that rules share; `general`: its plan runs over the rows of each window; `presence`: its plan runs over all
    /// series; `row`: row by row; `ordered`: row by row in the order of their times, with OVER.
    pub strategy: &'static str,
    /// Why it is not `shared`, where it could be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    /// Its window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<WindowExplanation>,
    /// Rows that may pass through its plan in one evaluation, where its plan is run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_rows: Option<u64>,
    /// Its OVERs; for `ordered` only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub overs: Vec<OverExplanation>,
    /// What it shares; for `shared` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared: Option<SharedExplanation>,
}

/// One OVER.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OverExplanation {
    /// What is asked, by which partition, of which frame.
    pub over: String,
    /// Rules that use it.
    pub rules: usize,
    /// How far back its frame reaches, in seconds.
    pub reach_seconds: f64,
    /// Rows held now.
    pub rows: usize,
    /// Bytes held now, about.
    pub bytes: usize,
}

impl From<Shared> for OverExplanation {
    fn from(shared: Shared) -> OverExplanation {
        let Shared { call, rules, reach, rows, bytes } = shared;
        OverExplanation { over: call, rules, reach_seconds: reach.0 as f64 / 1e6, rows, bytes }
    }
}

/// A window, in seconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WindowExplanation {
    /// Its length.
    pub size_seconds: f64,
    /// The time from one to the next.
    pub slide_seconds: f64,
    /// How long it waits for stragglers.
    pub delay_seconds: f64,
}

/// What a rule shares with others.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SharedExplanation {
    /// The group list.
    pub group_by: Vec<String>,
    /// Conditions on groups: they are looked at once per group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_condition: Option<String>,
    /// Conditions on rows: they are part of what must be equal to share.
    pub row_conditions: Vec<String>,
    /// Length of a pane.
    pub pane_seconds: f64,
    /// Panes of a window.
    pub panes: i64,
    /// The cubes.
    pub cubes: Vec<CubeExplanation>,
    /// Groups known now.
    pub groups: usize,
    /// Groups at most; rows of further ones are counted and belong to none.
    pub group_limit: usize,
}

/// One cube: an aggregate over a group list, in panes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CubeExplanation {
    /// The aggregate.
    pub aggregate: String,
    /// Rules that use it.
    pub rules: usize,
    /// `subtract`: panes are added and subtracted; `two stacks`: they are combined.
    pub sliding: &'static str,
    /// States that are added, taken out or merged when a window moves on, with the groups of now: what a slide costs, together with all rules
    /// that use the cube.
    pub states_per_slide: usize,
    /// Bytes held now.
    pub bytes: usize,
    /// Bytes at the limit of groups, without what states hold on the heap.
    pub bytes_at_limit: usize,
}

/// Bytes, for people.
fn bytes(count: usize) -> String {
    match count {
        ..10_000 => format!("{count} B"),
        10_000..10_000_000 => format!("{} KB", count / 1_000),
        _ => format!("{} MB", count / 1_000_000),
    }
}

/// Seconds, for people.
fn seconds(seconds: f64) -> Span {
    Span((seconds * 1e6) as i64)
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match self.strategy {
            "shared" => "shared windows",
            "general" => "its plan runs over the rows of each window",
            "presence" => "its plan runs over all series",
            "ordered" => "row by row, in the order of their times",
            _ => "row by row, on arrival",
        };
        writeln!(f, "{} on {}: {how}", self.rule, self.table)?;
        if let Some(because) = &self.because {
            let not = if self.strategy == "row" { "its plan runs over each batch" } else { "not shared" };
            writeln!(f, "  {not}: {because}")?;
        }
        if let Some(window) = &self.window {
            let (size, slide) = (seconds(window.size_seconds), seconds(window.slide_seconds));
            writeln!(f, "  window    {size} every {slide}, {} after its end", seconds(window.delay_seconds))?;
        }
        if let Some(rows) = self.budget_rows {
            writeln!(f, "  budget    {rows} rows through its plan at each slide")?;
        }
        for OverExplanation { over, rules, reach_seconds, rows, bytes: held } in &self.overs {
            let (s, reach, held) = (if *rules == 1 { "" } else { "s" }, seconds(*reach_seconds), bytes(*held));
            writeln!(f, "  over      {over}: {rules} rule{s}, {rows} rows of {reach} now, {held}")?;
        }
        let Some(shared) = &self.shared else { return Ok(()) };
        let groups =
            if shared.group_by.is_empty() { "all rows are one group".into() } else { shared.group_by.join(", ") };
        writeln!(f, "  groups    {groups}; {} now, {} at most", shared.groups, shared.group_limit)?;
        if let Some(condition) = &shared.group_condition {
            writeln!(f, "  of these  {condition}")?;
        }
        if !shared.row_conditions.is_empty() {
            writeln!(f, "  rows      {}", shared.row_conditions.join(" AND "))?;
        }
        writeln!(f, "  panes     {} of {}", shared.panes, seconds(shared.pane_seconds))?;
        for cube in &shared.cubes {
            writeln!(
                f,
                "  cube      {}: {} rule{}, {}, {} states a slide, {} now, {} at most",
                cube.aggregate,
                cube.rules,
                if cube.rules == 1 { "" } else { "s" },
                cube.sliding,
                cube.states_per_slide,
                bytes(cube.bytes),
                bytes(cube.bytes_at_limit),
            )?;
        }
        Ok(())
    }
}
