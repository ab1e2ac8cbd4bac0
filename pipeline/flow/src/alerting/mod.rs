//! Who is told of alerts: Alertmanager's routing tree, groups, inhibition, silences and intervals, and what everybody was told.
//!
//! Names, defaults and conditions are Alertmanager's (docs/alerting.md says where they differ on purpose).

mod dispatch;
pub mod interval;
mod matcher;
mod mute;
mod route;

pub use dispatch::{
    BUILT_IN, Dispatcher, GroupView, Muting, Place, Policy, Seen, Target, Told, Why, decide, wire_labels,
};
pub use interval::TimeInterval;
pub use matcher::{Comparison, Matcher, MatcherError};
pub use mute::{InhibitRule, Inhibitor, SILENCE_KEPT, Silence, SilenceState};
pub use route::{GroupBy, Route};
