//! Whoever takes the engine's evaluations.

use tidewatch_model::{Evaluation, Key, Timestamp};

/// The groups whose state is to be told even though they do not fire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Watched {
    /// Every known one.
    All,
    /// These: those with an alert that is alive.
    Keys(Vec<Key>),
}

/// Takes evaluations.
pub trait Listener {
    /// The groups of a rule whose state its next evaluation must tell. What fires is always told, and so is, with `no_data =
    /// 'alert'`, what is silent; most groups are clear and nobody asks.
    fn watched(&self, rule: &str) -> Watched;

    /// Takes an evaluation. Answers until when further evaluations of the rule would change nothing as long as none of its
    /// groups has rows: [`Timestamp::MIN`] when that is not known.
    fn take(&mut self, evaluation: Evaluation) -> Timestamp;
}
