//! The registry's data: every table, also those whose collectors come later, so that rules and the lake never guess.

mod gpu;
mod machine;
mod own;
mod parts;
mod workload;

use super::{Column, ColumnType, Table};

/// Every table of Tidewatch.
pub const TABLES: &[Table] = &[
    machine::HOST,
    machine::CPU,
    machine::DISK,
    machine::NET,
    machine::IB,
    machine::PROCESS,
    parts::MEMORY_CONTROLLER,
    parts::PCIE,
    parts::CGROUP,
    gpu::GPU,
    gpu::GPU_PROCESS,
    gpu::GPU_EVENT,
    machine::KERNEL_EVENT,
    workload::LOG,
    workload::TRAIN_STEP,
    workload::JOB_EVENT,
    workload::SERVE,
    workload::SERVE_HISTOGRAM,
    workload::DATA_JOB,
    workload::METRICS,
    own::COLLECTOR,
    own::ALERT_EVENT,
    own::NOTICE_EVENT,
    own::SILENCE_EVENT,
];

/// Part of the identity, as text.
const fn id(name: &'static str, source: &'static str) -> Column {
    Column { name, column_type: ColumnType::Utf8, identity: true, unit: "", source, null_means: "not applicable" }
}

/// Part of the identity, as a number.
const fn id_number(name: &'static str, source: &'static str) -> Column {
    Column { name, column_type: ColumnType::Int64, identity: true, unit: "", source, null_means: "not applicable" }
}

const fn column(name: &'static str, column_type: ColumnType, unit: &'static str, source: &'static str) -> Column {
    Column { name, column_type, identity: false, unit, source, null_means: "could not be read" }
}

/// A name, a state in words, a message.
const fn text(name: &'static str, source: &'static str) -> Column {
    column(name, ColumnType::Utf8, "", source)
}

/// True or false.
const fn flag(name: &'static str, source: &'static str) -> Column {
    column(name, ColumnType::Bool, "", source)
}

/// A share, 0 to 1.
const fn ratio(name: &'static str, source: &'static str) -> Column {
    column(name, ColumnType::Float64, "ratio 0..1", source)
}

/// A measured value.
const fn float(name: &'static str, unit: &'static str, source: &'static str) -> Column {
    column(name, ColumnType::Float64, unit, source)
}

/// A whole number.
const fn integer(name: &'static str, unit: &'static str, source: &'static str) -> Column {
    column(name, ColumnType::Int64, unit, source)
}

/// A whole number that only rises, but at a reset.
const fn counter(name: &'static str, unit: &'static str, source: &'static str) -> Column {
    column(name, ColumnType::Int64, unit, source)
}

/// An instant.
const fn instant(name: &'static str, source: &'static str) -> Column {
    column(name, ColumnType::Timestamp, "microseconds since the epoch, UTC", source)
}

/// Names and values.
const fn map(name: &'static str, source: &'static str) -> Column {
    column(name, ColumnType::Map, "", source)
}

impl Column {
    /// The same column as part of the identity.
    const fn identity(mut self) -> Column {
        self.identity = true;
        self
    }

    /// The same column with another meaning of NULL.
    const fn null(mut self, null_means: &'static str) -> Column {
        self.null_means = null_means;
        self
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashSet;
    use std::fmt::Write;

    use super::*;
    use crate::table::{find, schema_fingerprint};

    #[test]
    fn names_and_units_agree() {
        let mut tables = HashSet::new();
        for table in TABLES {
            assert!(tables.insert(table.name), "table {} twice", table.name);
            assert!(table.identity().next().is_some(), "{} has no identity", table.name);
            let mut names = HashSet::from(["ts"]);
            for column in table.columns {
                let name = format!("{}.{}", table.name, column.name);
                assert!(names.insert(column.name), "{name} twice");
                assert!(!column.source.is_empty(), "{name} has no source");
                assert_eq!(column.name.ends_with("_ratio"), column.unit == "ratio 0..1", "{name}: {}", column.unit);
                if column.name.ends_with("_total") {
                    assert!(matches!(column.column_type, ColumnType::Int64 | ColumnType::Float64), "{name}");
                }
                for (ending, unit) in
                    [("_bytes", "bytes"), ("_celsius", "degrees Celsius"), ("_watts", "watts"), ("_mhz", "MHz")]
                {
                    assert!(!column.name.ends_with(ending) || column.unit == unit, "{name}: {}", column.unit);
                }
            }
        }
    }

    #[test]
    fn the_contracts_order() {
        let names =
            |table: &str| find(table).unwrap().columns.iter().map(|column| column.name).collect::<Vec<_>>().join(" ");
        assert_eq!(
            names("cpu"),
            "host core utilization_ratio user_ratio system_ratio iowait_ratio steal_ratio frequency_mhz"
        );
        assert_eq!(
            names("collector"),
            "host collector ok duration_seconds stuck_seconds rows_total errors_total dropped_rows_total spool_bytes message"
        );
        assert_eq!(names("gpu_event"), "host gpu_uuid kind code subcode pci_bus_id source message");
        assert_eq!(names("job_event"), "job rank host kind message");
        assert_eq!(
            names("alert_event"),
            "event_id rule rule_version fingerprint labels severity from_state to_state reason value values window_start window_end processed_at"
        );
    }

    /// Schemas on the wire and in the lake: a change here is a change of the format. `UPDATE_GOLDEN=1` rewrites the file.
    #[test]
    fn schemas_are_pinned() {
        let mut found = String::new();
        for table in TABLES {
            writeln!(found, "{} {}", table.name, schema_fingerprint(&table.schema())).unwrap();
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/schemas.txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden")).unwrap();
            std::fs::write(path, &found).unwrap();
        }
        assert_eq!(found, std::fs::read_to_string(path).unwrap(), "a schema changed; UPDATE_GOLDEN=1 accepts it");
    }
}
