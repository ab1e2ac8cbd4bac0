//! Tidewatch watches itself: figures of the engine as rows of `metrics`, for the bundled rules.

use std::collections::BTreeMap;

use tidewatch_flow::clean::{NAN, UNIT};
use tidewatch_model::{Span, Timestamp};

use super::{FIGURES_INTERVAL, Station, StationError};
use crate::alert_rows::figure_rows;

impl Station {
    /// Looks at itself: keeps the engine within its memory, and writes what rules are to watch.
    pub(super) fn write_figures(&mut self, now: Timestamp) -> Result<(), StationError> {
        if now < self.figures_due {
            return Ok(());
        }
        self.figures_due = now + FIGURES_INTERVAL;
        self.stats.engine_bytes = self.judge.keep_within(self.memory_limit);
        if !self.watches_itself {
            return Ok(());
        }
        let mut figures = Vec::new();
        let of = |name: &str, label: &'static str, values: &BTreeMap<String, u64>| -> Vec<_> {
            values.iter().map(|(of, value)| (name.to_string(), label, of.clone(), *value as f64)).collect()
        };
        figures.extend(of("tidewatch_rule_failures_total", "rule", &self.stats.rule_failures));
        figures.extend(of("tidewatch_engine_overflow_rows_total", "table", &self.stats.overflow_rows));
        figures.extend(of("tidewatch_lag_records", "table", &self.stats.lag));
        // What says itself that it is no value, and what only came in another unit, is no fault that people are to look for.
        let mut cleaned: BTreeMap<String, u64> = BTreeMap::new();
        for ((table, column, reason), values) in &self.stats.cleaned_values {
            if ![NAN, UNIT].contains(reason) {
                *cleaned.entry(format!("{table}.{column}")).or_default() += values;
            }
        }
        figures.extend(of("tidewatch_cleaned_values_total", "column", &cleaned));
        let outcomes: BTreeMap<String, u64> =
            self.stats.notices.iter().map(|(outcome, count)| (outcome.to_string(), *count)).collect();
        figures.extend(of("tidewatch_notices_total", "outcome", &outcomes));
        figures.push((
            "tidewatch_alertmanager_failures_total".to_string(),
            "part",
            "feed".to_string(),
            self.feed_failures,
        ));
        let failures = ("tidewatch_lake_failures_total".to_string(), "part", "lake".to_string());
        figures.push((failures.0, failures.1, failures.2, self.stats.lake_failures as f64));
        for (rule, share) in self.judge.engine().budget_shares() {
            figures.push(("tidewatch_rule_budget_ratio".to_string(), "rule", rule.to_string(), share));
        }
        figures.extend(self.time_figures(now));
        let groups = ("tidewatch_engine_overflow_groups_total".to_string(), "table", "all".to_string());
        figures.push((groups.0, groups.1, groups.2, self.stats.overflow_groups as f64));
        let part = self.tenure.part.name();
        // A counter that was not there was 0: without that its first value would be no increase.
        let mut rows = Vec::new();
        for (name, label, of, value) in figures {
            if name.ends_with("_total") && self.written_figures.insert((name.clone(), of.clone())) && value > 0.0 {
                rows.push((now - Span::millis(1), name.clone(), label, of.clone(), 0.0));
            }
            rows.push((now, name, label, of, value));
        }
        let rows = figure_rows(&rows, &part)?;
        self.append_rows("metrics", &rows)
    }

    /// By table that had rows since the last look: how far event time lies behind the clock, and which share of the rows came late.
    fn time_figures(&mut self, now: Timestamp) -> Vec<(String, &'static str, String, f64)> {
        let mut figures = Vec::new();
        for (table, rows) in &self.stats.rows {
            let late = self.stats.late_rows.get(table).copied().unwrap_or(0);
            let (rows_before, late_before) =
                self.looked_at.insert(table.clone(), (*rows, late)).unwrap_or((*rows, late));
            let fresh = rows.saturating_sub(rows_before);
            if fresh == 0 {
                // Of a table without rows nobody can say that it is well.
                continue;
            }
            if let Some(watermark) = self.stats.watermarks.get(table) {
                let behind = (now - *watermark).max(Span::ZERO).as_seconds();
                figures.push(("tidewatch_watermark_lag_seconds".to_string(), "table", table.clone(), behind));
            }
            let share = late.saturating_sub(late_before) as f64 / fresh as f64;
            figures.push(("tidewatch_late_rows_ratio".to_string(), "table", table.clone(), share));
        }
        figures
    }
}
