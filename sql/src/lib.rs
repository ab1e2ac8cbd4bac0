//! What a rule means. The only crate that imports DataFusion: the grammar of `CREATE ALERT`, windows in FROM, exact
//! sums, the engine that turns rows and watermarks into evaluations, and history as SQL.
//!
//! It knows no file, no socket, no clock and no alert: rules come in as text, rows as batches, time as an argument, and
//! what people are told is decided elsewhere.

mod bounds;
pub mod bundled;
mod calendar;
mod calls;
mod compile;
mod dimension;
mod ends;
mod engine;
mod exact;
mod exact_aggregate;
mod exact_squares;
mod explain;
mod fault;
mod flat;
mod float_extremes;
mod guarded;
mod histogram;
mod history;
mod increase;
mod lake_table;
mod lineage;
mod listener;
mod meter;
mod moments;
mod options;
mod packed;
mod panes;
mod percentile;
mod preprocess;
mod presence;
mod ratio;
mod reads;
mod recovery;
mod remarks;
mod robust;
mod rows_table;
mod samples;
mod session;
mod settings;
mod shape;
mod shared;
mod sketch;
mod smoothing;
mod spelling;
mod stall;
mod stand_in;
mod statement;
mod values;
mod views;
mod window_call;

pub use compile::{CompiledRule, Compiler, Loaded};
pub use dimension::{DimensionError, Dimensions};
pub use engine::{Engine, EngineError, Feed, Renewed, Series, TableCounts};
pub use exact::ExactSum;
pub use explain::{CubeExplanation, Explanation, OverExplanation, SharedExplanation, WindowExplanation};
pub use fault::{Fault, Level, Location, suggestion};
pub use history::{Description, History, Overlay, QueryError, STACK_BYTES};
pub use listener::{Listener, Watched};
pub use options::{LATER_OPTIONS, OPTIONS};
pub use session::CATALOG;
pub use sketch::RELATIVE_ERROR as PERCENTILE_ERROR;
pub use views::View;

#[cfg(test)]
mod tests;
