//! What a collector could not read, and why.

use std::collections::HashSet;

use crate::collector::Collected;
use crate::reading::Unreadable;
use crate::rows::{Rows, RowsError};

/// How bad a fault is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// This machine, kernel or build has no such source: told once by each collector, and no reason to call it ill.
    Absent,
    /// The source is there and was damaged or refused: told every time.
    Failed,
    /// Something that was read is not as it should be, and whoever read it is well: counted, and no reason to call it ill.
    Remark,
}

/// One column that is NULL although it should not be, with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The column; empty when the whole table is concerned.
    pub column: &'static str,
    /// The file or value, and what was wrong with it.
    pub reason: String,
    /// How bad it is.
    pub kind: FaultKind,
}

/// The faults of one collector: those of the pass under way, and which absences were told before.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    found: Vec<Fault>,
    /// Per column and not per device: names of virtual devices come and go without bound.
    told: HashSet<&'static str>,
}

impl Faults {
    /// The value, or `None` with its reason noted.
    pub fn keep<T>(&mut self, column: &'static str, read: Result<T, Unreadable>) -> Option<T> {
        match read {
            Ok(value) => Some(value),
            Err(why) => {
                self.note(column, why);
                None
            }
        }
    }

    /// Notes a fault; an absence only the first time.
    pub fn note(&mut self, column: &'static str, why: Unreadable) {
        if why.absent && !self.told.insert(column) {
            return;
        }
        let kind = if why.absent { FaultKind::Absent } else { FaultKind::Failed };
        self.found.push(Fault { column, reason: why.reason, kind });
    }

    /// What a collector hands on: these rows and the faults since the last call. Rows that fit no table are a fault of their own.
    pub fn collected(&mut self, rows: Result<Rows, RowsError>) -> Collected {
        let batch = rows.and_then(Rows::finish).map_err(|error| Unreadable::damaged(error.to_string()));
        Collected { batch: self.keep("", batch).flatten(), faults: self.take(), ..Collected::default() }
    }

    /// The faults since the last call.
    pub fn take(&mut self) -> Vec<Fault> {
        std::mem::take(&mut self.found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absences_are_told_once_and_failures_every_time() {
        let mut faults = Faults::default();
        for expected in [2, 1, 1] {
            assert_eq!(faults.keep("a", Err::<i64, _>(Unreadable::absent("none"))), None);
            assert_eq!(faults.keep("b", Err::<i64, _>(Unreadable::damaged("bad"))), None);
            assert_eq!(faults.keep("c", Ok(1)), Some(1));
            assert_eq!(faults.take().len(), expected);
        }
    }
}
