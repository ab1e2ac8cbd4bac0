//! The registry's data.

use super::Table;

/// Every table of Tidewatch.
pub const TABLES: &[Table] = &[];
