//! Rows in, transitions out: the SQL engine and the alert lifecycle as one. `up`, `backtest` and `test` all judge with
//! this, so they can't disagree.

use std::collections::BTreeMap;

use crate::stream_rows::StreamRows;
use arrow::array::RecordBatch;
use tidewatch_flow::lifecycle::{AlertBook, Fate};
use tidewatch_model::{Alert, Evaluation, Key, Outcome, Rule, RuleShape, Timestamp, Transition};
use tidewatch_sql::{CompiledRule, Dimensions, Engine, EngineError, Feed, Listener, Renewed, Watched};

/// The engine, the alerts, and the rules by name.
pub struct Judge {
    engine: Engine,
    verdicts: Verdicts,
}

/// What becomes of evaluations.
struct Verdicts {
    book: AlertBook,
    rules: BTreeMap<String, Rule>,
    /// Those that are about to take over.
    next: Option<BTreeMap<String, Rule>>,
    failures: Vec<(String, String)>,
    evaluations: u64,
    /// What followed and was not handed over yet.
    transitions: Vec<Transition>,
    /// What streams yielded and was not handed over yet.
    streams: Vec<StreamRows>,
}

impl Judge {
    /// With these rules and no alerts.
    ///
    /// # Errors
    /// When the engine can't be made.
    pub fn new(rules: Vec<CompiledRule>) -> Result<Judge, EngineError> {
        let by_name = rules.iter().map(|compiled| (compiled.rule.name.clone(), compiled.rule.clone())).collect();
        let verdicts = Verdicts {
            book: AlertBook::default(),
            rules: by_name,
            next: None,
            failures: vec![],
            evaluations: 0,
            transitions: vec![],
            streams: vec![],
        };
        Ok(Judge { engine: Engine::new(rules)?, verdicts })
    }

    /// Puts alerts and positions back as they were before a restart.
    pub fn restore(&mut self, alerts: Vec<Alert>, positions: &BTreeMap<String, Timestamp>) {
        for (name, emitted) in positions {
            let Some(rule) = self.verdicts.rules.get(name) else { continue };
            let of_rule = alerts.iter().filter(|alert| alert.rule == *name);
            let seen = |alert: &Alert| if rule.shape == RuleShape::Row { alert.last_match } else { *emitted };
            self.engine.restore(name, *emitted, of_rule.map(|alert| (key_of(rule, alert), seen(alert))));
        }
        self.verdicts.book.restore(alerts);
    }

    /// Begins to change the rules; see [`Engine::begin_change`].
    ///
    /// # Errors
    /// The engine's.
    pub fn begin_change(
        &mut self,
        rules: Vec<CompiledRule>,
        reached: &BTreeMap<String, Timestamp>,
    ) -> Result<Renewed, EngineError> {
        self.verdicts.next =
            Some(rules.iter().map(|compiled| (compiled.rule.name.clone(), compiled.rule.clone())).collect());
        self.engine.begin_change(rules, reached)
    }

    /// Gives up a change that was begun.
    pub fn cancel_change(&mut self) {
        self.verdicts.next = None;
        self.engine.cancel_change();
    }

    /// Gives rows to the rules that are about to take over.
    ///
    /// # Errors
    /// Rows that are not of the table's schema.
    pub fn prefill(&mut self, table: &str, batch: &RecordBatch) -> Result<(), EngineError> {
        self.engine.prefill(table, batch, &mut self.verdicts)
    }

    /// Lets them take over.
    pub fn commit_change(&mut self, reached: &BTreeMap<String, Timestamp>) {
        let Judge { engine, verdicts } = self;
        let Some(next) = verdicts.next.take() else { return };
        let positions: BTreeMap<String, Timestamp> =
            engine.positions().map(|(rule, ts)| (rule.to_string(), ts)).collect();
        let book = &verdicts.book;
        let mut groups = |rule: &Rule| -> Vec<(Key, Timestamp)> {
            let of_rule = book.alerts().filter(|alert| alert.rule == rule.name);
            let emitted = positions.get(&rule.name).copied();
            let seen = |alert: &Alert| match (rule.shape, emitted) {
                (RuleShape::Row, _) | (_, None) => alert.last_match,
                (_, Some(emitted)) => emitted,
            };
            of_rule.map(|alert| (key_of(rule, alert), seen(alert))).collect()
        };
        engine.commit_change(&|name| next.contains_key(name), reached, &mut groups);
        verdicts.rules = next;
    }

    /// Ends what edited rules no longer have; see [`AlertBook::reload`].
    pub fn reload(&mut self, fate: &dyn Fn(&str) -> Fate, positions: &BTreeMap<String, Timestamp>) -> Vec<Transition> {
        let rules: Vec<Rule> = self.verdicts.rules.values().cloned().collect();
        self.verdicts.book.reload(&rules, fate, positions)
    }

    /// Takes rows of a table.
    ///
    /// # Errors
    /// Rows that are not of the table's schema.
    pub fn push(&mut self, table: &str, batch: &RecordBatch, feed: Feed) -> Result<Vec<Transition>, EngineError> {
        let Judge { engine, verdicts } = self;
        engine.push(table, batch, feed, verdicts)?;
        Ok(std::mem::take(&mut verdicts.transitions))
    }

    /// Takes series that were seen before the start; see [`Engine::remember`].
    ///
    /// # Errors
    /// Rows without a table's identity columns.
    pub fn remember(&mut self, table: &str, seen: &RecordBatch) -> Result<(), EngineError> {
        self.engine.remember(table, seen)
    }

    /// See [`Engine::set_blind`].
    pub fn set_blind(&mut self, table: &str, blind: bool) {
        self.engine.set_blind(table, blind);
    }

    /// Moves a table's watermark.
    pub fn advance(&mut self, table: &str, watermark: Timestamp, lagging: bool) -> Vec<Transition> {
        let Judge { engine, verdicts } = self;
        engine.advance(table, watermark, lagging, verdicts);
        std::mem::take(&mut verdicts.transitions)
    }

    /// See [`Engine::advance_joined`].
    pub fn advance_joined(&mut self, table: &str, reached: Timestamp) -> Vec<Transition> {
        let Judge { engine, verdicts } = self;
        engine.advance_joined(table, reached, verdicts);
        std::mem::take(&mut verdicts.transitions)
    }

    /// See [`Engine::keep_within`].
    pub fn keep_within(&mut self, bytes: u64) -> BTreeMap<String, u64> {
        self.engine.keep_within(bytes)
    }

    /// See [`Engine::set_dimensions`].
    pub fn set_dimensions(&mut self, dimensions: &Dimensions) {
        self.engine.set_dimensions(dimensions);
    }

    /// Rows of streams since the last call, in order of their windows' ends for each.
    pub fn take_streams(&mut self) -> Vec<StreamRows> {
        std::mem::take(&mut self.verdicts.streams)
    }

    /// Gives the rows of streams back to the rules that read them, where no log is between; what follows.
    ///
    /// # Errors
    /// The engine's.
    pub fn feed_streams(&mut self) -> Result<Vec<Transition>, EngineError> {
        let mut transitions = Vec::new();
        loop {
            let streams = self.take_streams();
            if streams.is_empty() {
                return Ok(transitions);
            }
            for StreamRows { stream, end, rows, .. } in streams {
                transitions.extend(self.push(&stream, &rows, Feed::Live)?);
                transitions.extend(self.advance(&stream, end, false));
            }
        }
    }

    /// Errors of evaluations since the last call, with the names of their rules.
    pub fn take_failures(&mut self) -> Vec<(String, String)> {
        std::mem::take(&mut self.verdicts.failures)
    }

    /// Evaluations so far.
    pub fn evaluations(&self) -> u64 {
        self.verdicts.evaluations
    }

    /// Whether a rule is judged here.
    pub fn judges(&self, rule: &str) -> bool {
        self.verdicts.rules.contains_key(rule)
    }

    /// Whether a rule's last evaluation failed.
    pub fn fails(&self, rule: &str) -> bool {
        self.verdicts.book.failures(rule) > 0
    }

    /// The alerts.
    pub fn alerts(&self) -> impl Iterator<Item = &Alert> {
        self.verdicts.book.alerts()
    }

    /// The rules.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.verdicts.rules.values()
    }

    /// The engine, for its counters and positions.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }
}

impl Listener for Verdicts {
    fn watched(&self, rule: &str) -> Watched {
        let Some(rule) = self.rules.get(rule).filter(|rule| !rule.stream) else { return Watched::Keys(vec![]) };
        Watched::Keys(self.book.alive(&rule.name).map(|alert| key_of(rule, alert)).collect())
    }

    fn take(&mut self, evaluation: Evaluation) -> Timestamp {
        self.evaluations += 1;
        let Some(rule) = self.rules.get(&evaluation.rule) else { return Timestamp::MAX };
        if let Outcome::Failed(error) = &evaluation.outcome {
            self.failures.push((evaluation.rule.clone(), error.clone()));
        }
        if rule.stream {
            match StreamRows::of(&evaluation, &rule.version) {
                Ok(rows) => self.streams.extend(rows),
                Err(error) => self.failures.push((evaluation.rule.clone(), error.to_string())),
            }
            return Timestamp::MAX;
        }
        self.transitions.extend(self.book.advance(rule, &evaluation));
        self.book.quiet_until(rule)
    }
}

/// The part of an alert's labels that is the group's key.
fn key_of(rule: &Rule, alert: &Alert) -> Key {
    if !alert.group.is_empty() {
        return alert.group.clone();
    }
    alert
        .labels
        .iter()
        .filter(|(name, _)| rule.key.contains(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}
