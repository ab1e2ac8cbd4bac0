//! Samples of exporters that everybody runs become rows of the tables that rules are written for: vLLM, SGLang, TGI, Triton, llama.cpp
//! and Ray Serve in `serve` and `serve_histogram`, Ray Data, Flink and Spark in `data_job`, DCGM in `gpu` and `gpu_event`.
//!
//! `exporters` is the whole mapping, as data; the rest reads it. Nothing here knows where samples come from.

mod exporters;
mod fill;
mod gather;
#[cfg(test)]
mod mapping_tests;
#[cfg(test)]
mod tests;
mod xids;

use std::fmt;
use std::str::FromStr;

use arrow::array::RecordBatch;
use tidewatch_model::Timestamp;

use crate::rows::RowsError;
use gather::{Gather, Whole};
use xids::Xids;

/// One sample, with the labels of its series and of its target.
#[derive(Debug, Clone, PartialEq)]
pub struct TypedSample<'a> {
    /// When it was true.
    pub ts: Timestamp,
    /// The metric's name.
    pub name: &'a str,
    /// The labels: `job` and `instance` say whose it is.
    pub labels: Vec<(&'a str, &'a str)>,
    /// The value; NaN is none.
    pub value: f64,
}

impl TypedSample<'_> {
    /// A label; an empty one is none.
    fn label(&self, name: &str) -> Option<&str> {
        let (_, value) = self.labels.iter().find(|(known, _)| *known == name)?;
        Some(*value).filter(|value| !value.is_empty())
    }
}

/// The tables that can be filled.
const TABLES: [&str; 5] = ["serve", "serve_histogram", "data_job", "gpu", "gpu_event"];

/// Which of them are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum TypedTables {
    /// All; without those of GPUs on a machine that has GPUs of its own, which its agent watches itself.
    #[default]
    Auto,
    /// These.
    Only(Vec<&'static str>),
}

impl TypedTables {
    /// The tables, on a machine with or without GPUs.
    pub fn tables(&self, has_gpus: bool) -> Vec<&'static str> {
        match self {
            TypedTables::Auto => TABLES.into_iter().filter(|table| !(has_gpus && table.starts_with("gpu"))).collect(),
            TypedTables::Only(tables) => tables.clone(),
        }
    }
}

impl FromStr for TypedTables {
    type Err = String;

    /// `auto`, `all`, `none`, or tables, comma separated.
    fn from_str(text: &str) -> Result<TypedTables, String> {
        match text.trim() {
            "auto" | "" => Ok(TypedTables::Auto),
            "all" => Ok(TypedTables::Only(TABLES.to_vec())),
            "none" => Ok(TypedTables::Only(vec![])),
            list => {
                let table = |word: &str| {
                    let known = TABLES.into_iter().find(|table| *table == word.trim());
                    known.ok_or_else(|| format!("'{word}': expected auto, all, none or some of {}", TABLES.join(",")))
                };
                list.split(',').map(table).collect::<Result<_, _>>().map(TypedTables::Only)
            }
        }
    }
}

impl fmt::Display for TypedTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TypedTables::Auto => f.write_str("auto"),
            TypedTables::Only(tables) if tables.is_empty() => f.write_str("none"),
            TypedTables::Only(tables) => f.write_str(&tables.join(",")),
        }
    }
}

/// Makes rows of samples.
#[derive(Debug)]
pub struct Typed {
    tables: Vec<&'static str>,
    xids: Xids,
    gather: Gather,
}

impl Typed {
    /// For these tables.
    pub fn new(tables: Vec<&'static str>) -> Typed {
        Typed { tables, xids: Xids::default(), gather: Gather::default() }
    }

    /// Whether samples of this metric say something: the others need not be given.
    pub fn knows(&self, metric: &str) -> bool {
        fill::tables_of(metric).any(|table| self.wants(table))
    }

    /// The rows: one for each identity and time. All samples of a scrape belong into one call, since some columns are sums of several series:
    /// of a part of them they would jump. Where scrapes come in pieces, `add` and `whole` put them together.
    ///
    /// # Errors
    /// A table has not the columns that the mapping names, which a test rules out.
    pub fn rows(&mut self, samples: &[TypedSample<'_>]) -> Result<Vec<(&'static str, RecordBatch)>, RowsError> {
        let mut tables = fill::rows(samples, &|table| self.wants(table))?;
        if self.wants("gpu_event") {
            tables.extend(self.xids.rows(samples)?.map(|batch| ("gpu_event", batch)));
        }
        Ok(tables)
    }

    /// Takes samples of which others of the same scrape (job, instance and time) may have come before, or come still.
    pub fn add(&mut self, now: Timestamp, samples: &[TypedSample<'_>]) {
        for sample in samples.iter().filter(|sample| self.knows(sample.name)).collect::<Vec<_>>() {
            self.gather.add(now, sample);
        }
    }

    /// The rows of the scrapes of which nothing has come for fifteen seconds. To be asked for every second or so.
    ///
    /// # Errors
    /// Those of `rows`.
    pub fn whole(&mut self, now: Timestamp) -> Result<Vec<(&'static str, RecordBatch)>, RowsError> {
        let whole = self.gather.whole(now);
        let samples: Vec<TypedSample<'_>> = whole.iter().flat_map(Whole::samples).collect();
        self.rows(&samples)
    }

    fn wants(&self, table: &str) -> bool {
        self.tables.contains(&table)
    }
}
