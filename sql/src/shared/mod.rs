//! Shared windows: what many rules over one table have in common is computed once.
//!
//! Rows are filtered and numbered by group ([`chunk`], [`grouping`]), and aggregated once per distinct call into panes ([`cube`],
//! [`kernel`], [`growth`]); windows slide over panes by adding what came and subtracting what went. Rules that differ in their
//! conditions on groups, in HAVING or in the SELECT list cost a comparison per group and slide ([`rule`]).

mod bounds;
mod chunk;
mod cluster;
mod cube;
mod frame;
mod grouping;
pub mod growth;
mod held;
mod kernel;
pub mod ordered;
pub mod over;
pub mod plan;
pub mod rule;
mod stock;
pub mod table;

pub use grouping::{Grouping, NO_GROUP};
pub use kernel::{order_floats, plain_nan};
