//! Rows in, transitions out: the SQL engine and the alert lifecycle as one. `up`, `backtest` and `test` all judge with
//! this, so they can't disagree.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use tidewatch_flow::lifecycle::AlertBook;
use tidewatch_model::{Alert, Evaluation, Key, Outcome, Rule, Timestamp, Transition};
use tidewatch_sql::{CompiledRule, Engine, EngineError, Feed};

/// The engine, the alerts, and the rules by name.
pub struct Judge {
    engine: Engine,
    book: AlertBook,
    rules: BTreeMap<String, Rule>,
    failures: Vec<(String, String)>,
    evaluations: u64,
}

impl Judge {
    /// With these rules and no alerts.
    ///
    /// # Errors
    /// When the engine can't be made.
    pub fn new(rules: Vec<CompiledRule>) -> Result<Judge, EngineError> {
        let by_name = rules.iter().map(|compiled| (compiled.rule.name.clone(), compiled.rule.clone())).collect();
        Ok(Judge {
            engine: Engine::new(rules)?,
            book: AlertBook::default(),
            rules: by_name,
            failures: vec![],
            evaluations: 0,
        })
    }

    /// Puts alerts and positions back as they were before a restart, and ends what the edited rules no longer have.
    pub fn restore(
        &mut self,
        alerts: Vec<Alert>,
        positions: &BTreeMap<String, Timestamp>,
        now: Timestamp,
    ) -> Vec<Transition> {
        for (name, emitted) in positions {
            let Some(rule) = self.rules.get(name) else { continue };
            let of_rule = alerts.iter().filter(|alert| alert.rule == *name);
            self.engine.restore(name, *emitted, of_rule.map(|alert| key_of(rule, alert)).collect::<Vec<_>>());
        }
        self.book.restore(alerts);
        let rules: Vec<Rule> = self.rules.values().cloned().collect();
        self.book.reload(&rules, now)
    }

    /// Takes rows of a table.
    ///
    /// # Errors
    /// Rows that are not of the table's schema.
    pub fn push(&mut self, table: &str, batch: &RecordBatch, feed: Feed) -> Result<Vec<Transition>, EngineError> {
        let evaluations = self.engine.push(table, batch, feed)?;
        Ok(self.judge(evaluations))
    }

    /// Moves a table's watermark.
    pub fn advance(&mut self, table: &str, watermark: Timestamp, lagging: bool) -> Vec<Transition> {
        let evaluations = self.engine.advance(table, watermark, lagging);
        self.judge(evaluations)
    }

    fn judge(&mut self, evaluations: Vec<Evaluation>) -> Vec<Transition> {
        let mut transitions = Vec::new();
        self.evaluations += evaluations.len() as u64;
        for evaluation in evaluations {
            let Some(rule) = self.rules.get(&evaluation.rule) else { continue };
            if let Outcome::Failed(error) = &evaluation.outcome {
                self.failures.push((evaluation.rule.clone(), error.clone()));
            }
            transitions.extend(self.book.advance(rule, &evaluation));
        }
        transitions
    }

    /// Errors of evaluations since the last call, with the names of their rules.
    pub fn take_failures(&mut self) -> Vec<(String, String)> {
        std::mem::take(&mut self.failures)
    }

    /// Evaluations so far.
    pub fn evaluations(&self) -> u64 {
        self.evaluations
    }

    /// The alerts.
    pub fn alerts(&self) -> impl Iterator<Item = &Alert> {
        self.book.alerts()
    }

    /// The rules.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.values()
    }

    /// The engine, for its counters and positions.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }
}

/// The part of an alert's labels that is the group's key.
fn key_of(rule: &Rule, alert: &Alert) -> Key {
    alert
        .labels
        .iter()
        .filter(|(name, _)| rule.key.contains(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}
