//! The order of settled rows.

use std::collections::HashMap;

use arrow::array::{ArrayRef, AsArray, RecordBatch, new_null_array};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Schema, TimestampMicrosecondType};
use arrow::row::{OwnedRow, Row, RowConverter, SortField};
use tidewatch_model::table::{self, TIME_COLUMN};

use crate::error::LakeError;
use crate::parquet_files::wrong;

/// Finds the order of rows by identity and ts, and by arrival where both are equal. There are few identities for many rows: they
/// are numbered as rows come, ranked at the end, and rows are counted into their ranks; within one they mostly came in order.
pub struct Ranking {
    table: String,
    converter: Option<RowConverter>,
    fields: Vec<(String, DataType)>,
    known: HashMap<Box<[u8]>, u32>,
    tuples: Vec<OwnedRow>,
    of_row: Vec<u32>,
    times: Vec<i64>,
}

impl Ranking {
    /// For rows of a table that have this schema, or fewer columns of it.
    pub fn new(table: &str, schema: &Schema) -> Result<Ranking, LakeError> {
        let names = sort_names(table, schema).into_iter().filter(|name| *name != TIME_COLUMN);
        let fields: Vec<(String, DataType)> = names
            .filter_map(|name| Some((name.to_string(), schema.field_with_name(name).ok()?.data_type().clone())))
            .collect();
        let ascending = SortOptions { descending: false, nulls_first: false };
        let sorts = fields.iter().map(|(_, kind)| SortField::new_with_options(kind.clone(), ascending)).collect();
        let converter = match fields.is_empty() {
            true => None,
            false => Some(RowConverter::new(sorts).map_err(|error| wrong(table, error))?),
        };
        Ok(Ranking {
            table: table.to_string(),
            converter,
            fields,
            known: HashMap::new(),
            tuples: vec![],
            of_row: vec![],
            times: vec![],
        })
    }

    /// The columns that it looks at.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|(name, _)| name.as_str()).chain(std::iter::once(TIME_COLUMN))
    }

    /// The next rows.
    pub fn add(&mut self, batch: &RecordBatch) -> Result<(), LakeError> {
        let times = batch.column_by_name(TIME_COLUMN).and_then(|ts| ts.as_primitive_opt::<TimestampMicrosecondType>());
        let times = times.ok_or_else(|| wrong(&self.table, "ts is missing"))?;
        self.times.extend_from_slice(times.values());
        let Some(converter) = &mut self.converter else {
            self.of_row.resize(self.times.len(), 0);
            return Ok(());
        };
        let column = |(name, kind): &(String, DataType)| match batch.column_by_name(name) {
            Some(column) => column.clone(),
            None => new_null_array(kind, batch.num_rows()),
        };
        let columns: Vec<ArrayRef> = self.fields.iter().map(column).collect();
        let keys = converter.convert_columns(&columns).map_err(|error| wrong(&self.table, error))?;
        let mut last: Option<(Row, u32)> = None;
        for key in keys.iter() {
            let tuple = match last {
                Some((before, tuple)) if before == key => tuple,
                _ => match self.known.get(key.data()) {
                    Some(tuple) => *tuple,
                    None => {
                        let tuple = self.tuples.len() as u32;
                        self.tuples.push(key.owned());
                        self.known.insert(key.data().into(), tuple);
                        tuple
                    }
                },
            };
            last = Some((key, tuple));
            self.of_row.push(tuple);
        }
        Ok(())
    }

    /// The rows' numbers, in order.
    pub fn order(self) -> Vec<u32> {
        let Ranking { tuples, of_row, times, .. } = self;
        let mut by_rank: Vec<u32> = (0..tuples.len().max(1) as u32).collect();
        by_rank.sort_unstable_by(|one, other| tuples.get(*one as usize).cmp(&tuples.get(*other as usize)));
        let mut counts = vec![0u32; by_rank.len()];
        of_row.iter().for_each(|tuple| counts[*tuple as usize] += 1);
        let mut places = vec![0u32; counts.len()];
        let mut place = 0;
        for tuple in by_rank {
            places[tuple as usize] = place;
            place += counts[tuple as usize];
        }
        let starts = places.clone();
        let mut order = vec![0u32; of_row.len()];
        for (row, tuple) in of_row.iter().enumerate() {
            let place = &mut places[*tuple as usize];
            order[*place as usize] = row as u32;
            *place += 1;
        }
        for (start, count) in starts.into_iter().zip(counts) {
            let rows = &mut order[start as usize..(start + count) as usize];
            let ts = |row: &u32| times[*row as usize];
            if !rows.is_sorted_by_key(ts) {
                rows.sort_by_key(ts);
            }
        }
        order
    }
}

/// Identity columns that can be compared, then ts.
pub fn sort_names(table: &str, schema: &Schema) -> Vec<&'static str> {
    let comparable =
        |name: &&str| schema.field_with_name(name).is_ok_and(|field| !matches!(field.data_type(), DataType::Map(_, _)));
    let identity = table::find(table).into_iter().flat_map(|table| table.identity());
    identity.filter(comparable).chain(std::iter::once(TIME_COLUMN)).collect()
}
