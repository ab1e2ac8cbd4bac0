//! One module per command of `tidewatch`.

pub mod alerts;
pub mod backtest;
pub mod check;
pub mod config;
pub mod dlq;
pub mod explain;
mod feeding;
pub mod import;
pub mod lake;
pub mod prompt;
pub mod query;
pub mod render;
pub mod rules;
pub mod serve_sql;
mod signals;
pub mod silence;
pub mod simulate;
pub mod sql_worker;
pub mod tables;
mod telling;
pub mod test;
pub mod up;
