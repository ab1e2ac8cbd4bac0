//! Dimension tables: what is known besides the rows over time, and may be joined to them. Their rows come from files that the
//! configuration names; XIDs and settings have rows of their own until it does.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};

use super::{Column, ColumnType};

/// One dimension table. All of its columns may be NULL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dimension {
    /// Its name.
    pub name: &'static str,
    /// What one row is.
    pub meaning: &'static str,
    /// The columns; those of the identity name an alert where they are selected.
    pub columns: &'static [Column],
}

const fn column(name: &'static str, column_type: ColumnType, unit: &'static str, identity: bool) -> Column {
    Column { name, column_type, identity, unit, source: "the operator's file", null_means: "not said" }
}

/// The dimension tables whose columns are known.
pub const DIMENSIONS: &[Dimension] = &[
    Dimension {
        name: "expected",
        meaning: "what a machine should have",
        columns: &[
            column("host", ColumnType::Utf8, "", true),
            column("gpus", ColumnType::Int64, "GPUs", false),
            column("ib_ports", ColumnType::Int64, "ports", false),
            column("ib_rate_gigabits_per_second", ColumnType::Float64, "gigabits per second", false),
        ],
    },
    Dimension {
        name: "settings",
        meaning: "one number that rules name with setting('NAME'): a threshold that a site may want to change",
        columns: &[
            column("name", ColumnType::Utf8, "", true),
            column("value", ColumnType::Float64, "as `unit` says", false),
            column("unit", ColumnType::Utf8, "", false),
            column("meaning", ColumnType::Utf8, "", false),
        ],
    },
    Dimension {
        name: "xid_catalog",
        meaning: "one code of the NVIDIA driver, and what to do about it",
        columns: &[
            column("code", ColumnType::Int64, "", true),
            column("name", ColumnType::Utf8, "", false),
            column("severity", ColumnType::Utf8, "", false),
            column("action", ColumnType::Utf8, "", false),
        ],
    },
    Dimension {
        name: "maintenance",
        meaning: "a time in which somebody works on a machine",
        columns: &[
            column("host", ColumnType::Utf8, "", true),
            column("from_ts", ColumnType::Timestamp, "microseconds since the epoch, UTC", false),
            column("to_ts", ColumnType::Timestamp, "microseconds since the epoch, UTC", false),
            column("note", ColumnType::Utf8, "", false),
        ],
    },
];

impl Dimension {
    /// Its Arrow schema.
    pub fn schema(&self) -> SchemaRef {
        let fields = self.columns.iter().map(|column| Field::new(column.name, column.column_type.arrow(), true));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }
}

/// A dimension table whose columns are known, by name.
pub fn find_dimension(name: &str) -> Option<&'static Dimension> {
    DIMENSIONS.iter().find(|dimension| dimension.name == name)
}

/// The rows of `xid_catalog` where no file says otherwise: code, name, severity (critical, warning, info), action. Codes and their
/// severity: what gpud, DCGM and NVIDIA's own list agree on; where they differ, the milder of two.
pub const XIDS: &[(i64, &str, &str, &str)] = &[
    (13, "graphics engine exception", "info", "look at the application"),
    (31, "memory page fault", "info", "look at the application"),
    (43, "the application's channel was stopped", "info", "look at the application"),
    (45, "the application was ended", "info", "look at the application"),
    (46, "the GPU stopped processing", "critical", "reset the GPU"),
    (48, "double-bit memory error", "critical", "drain the machine, reset the GPU"),
    (61, "microcontroller breakpoint", "warning", "reset the GPU if it is repeated"),
    (62, "microcontroller halt", "critical", "reset the GPU"),
    (63, "a memory row was remapped", "info", "reset the GPU when its jobs are done"),
    (64, "a memory row could not be remapped", "critical", "drain the machine, reset the GPU"),
    (68, "video decoder exception", "info", "look at the application"),
    (69, "graphics engine class error", "info", "look at the application"),
    (74, "NVLink error", "critical", "drain the machine, check the links"),
    (79, "the GPU has fallen off the bus", "critical", "drain the machine, restart it"),
    (92, "many single-bit memory errors", "warning", "watch it"),
    (94, "contained memory error", "warning", "restart the application"),
    (95, "uncontained memory error", "critical", "drain the machine, reset the GPU"),
    (109, "context switch timeout", "critical", "reset the GPU"),
    (110, "security fault", "critical", "restart the machine"),
    (119, "the GPU's system processor timed out", "critical", "reset the GPU, restart the machine if it is repeated"),
    (120, "the GPU's system processor failed", "critical", "reset the GPU, restart the machine if it is repeated"),
    (136, "link training failed", "critical", "drain the machine, check the links"),
    (140, "unrecovered memory error", "critical", "drain the machine, reset the GPU"),
    (143, "the GPU failed to initialise", "critical", "restart the machine"),
    (154, "the recommended recovery changed", "info", "see recovery_action"),
    (155, "NVLink software error", "critical", "reset the GPU"),
    (156, "resource retirement event", "critical", "drain the machine, reset the GPU"),
    (158, "fatal timeout", "critical", "reset the GPU"),
];

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_do_not_collide() {
        let mut names: HashSet<&str> = super::super::TABLES.iter().map(|table| table.name).collect();
        assert!(DIMENSIONS.iter().all(|dimension| names.insert(dimension.name)));
        assert_eq!(find_dimension("expected").unwrap().schema().field(1).name(), "gpus");
        let codes: Vec<i64> = XIDS.iter().map(|xid| xid.0).collect();
        assert!(codes.is_sorted_by(|left, right| left < right), "{codes:?}");
        assert!(XIDS.iter().all(|xid| ["critical", "warning", "info"].contains(&xid.2)));
    }
}
