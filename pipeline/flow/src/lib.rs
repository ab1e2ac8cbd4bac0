//! What is decided, and nothing else: which rows are admitted, how far event time has come, when an alert changes its
//! state, who is told and when it is tried again.
//!
//! No clock, no file, no socket, no async and no SQL engine: everything comes in as an argument and goes out as a value,
//! so each decision can be tested, and replayed, as a function.

pub mod admit;
pub mod alerting;
pub mod clean;
mod humanize;
pub mod lifecycle;
pub mod outbox;
mod printf;
pub mod template;
pub mod watermark;
