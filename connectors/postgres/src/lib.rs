//! PostgreSQL's wire protocol, read-only: psql, drivers and dashboards ask the history as if it were a PostgreSQL server.
//!
//! This crate speaks the protocol and knows PostgreSQL's catalog; statements are answered by whoever implements [`Answers`], in
//! another process. It imports DataFusion for the catalog's sake and for the parser, and runs no plan.

mod answers;
mod catalog;
mod columns;
mod handlers;
mod parameters;
mod server;
mod statements;

pub use answers::{Answers, Shape, Unanswered};
pub use catalog::{Overlay, catalog};
pub use server::{Admit, PostgresServer};
pub use statements::{Statement, parse};
