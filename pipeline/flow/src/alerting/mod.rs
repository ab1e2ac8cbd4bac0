//! Who is told of alerts: Alertmanager's routing tree, groups, inhibition, silences and intervals, and what everybody was told.
//!
//! Names, defaults and conditions are Alertmanager's (docs/alerting.md says where they differ on purpose).

mod dispatch;
pub mod interval;
mod matcher;
mod mute;
mod policy;
mod route;
mod told;

pub use dispatch::{Dispatcher, GroupView, Muting, Place};
pub use interval::TimeInterval;
pub use matcher::{Comparison, Matcher, MatcherError};
pub use mute::{Ack, InhibitRule, Inhibitor, SILENCE_KEPT, Silence, SilenceState};
pub use policy::{BUILT_IN, Policy, Target};
pub use route::{GroupBy, Route};
pub use told::{Seen, Told, Why, decide};

/// Labels of these names and values.
#[cfg(test)]
fn labels(pairs: &[(&str, &str)]) -> tidewatch_model::alert::Labels {
    pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}
