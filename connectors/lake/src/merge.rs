//! Sorting more rows than memory should hold: the order is found from identities and times alone, and then as many rows at a time
//! are read as fit, by passing over the hot files again. What comes out is what sorting them at once gives.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, interleave_record_batch, take_record_batch};
use arrow::datatypes::SchemaRef;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::RowSelection;

use crate::error::LakeError;
use crate::parquet_files::{CHUNK_ROWS, damaged, open, union, widen, without_dictionaries, wrong};
use crate::ranking::Ranking;

/// Rows of a hot file, where they are.
pub enum Source {
    /// In memory, as the file has them.
    Here(Vec<RecordBatch>),
    /// In the store, by path.
    There(String),
}

/// All rows of some sources, to be read in order.
pub struct Merge<'a> {
    table: &'a str,
    sources: Vec<Source>,
    /// The schema of what comes out: every column that any source has.
    pub schema: SchemaRef,
    order: Vec<u32>,
    /// The number of each source's first row, and of the one after the last.
    starts: Vec<u32>,
    read: &'a dyn Fn(&str) -> Result<Vec<u8>, LakeError>,
}

impl<'a> Merge<'a> {
    /// Finds the order; `read` gives a file of the store.
    pub fn new(
        table: &'a str,
        sources: Vec<Source>,
        read: &'a dyn Fn(&str) -> Result<Vec<u8>, LakeError>,
    ) -> Result<Merge<'a>, LakeError> {
        let schemas = sources.iter().map(|source| schema_of(table, source, read)).collect::<Result<Vec<_>, _>>()?;
        let schema = union(schemas).ok_or_else(|| wrong(table, "no rows"))?;
        let mut ranking = Ranking::new(table, &schema)?;
        let names: Vec<String> = ranking.columns().map(str::to_string).collect();
        let mut starts = vec![0];
        for source in &sources {
            let mut rows = 0;
            match source {
                Source::Here(batches) => {
                    for batch in batches {
                        ranking.add(&without_dictionaries(table, batch)?)?;
                        rows += batch.num_rows() as u32;
                    }
                }
                Source::There(path) => {
                    let builder = open(path, read(path)?)?;
                    let leaves = builder.parquet_schema();
                    let is_key = |leaf: &usize| names.contains(&leaves.column(*leaf).path().parts()[0]);
                    let keys: Vec<usize> = (0..leaves.num_columns()).filter(is_key).collect();
                    let mask = ProjectionMask::leaves(leaves, keys);
                    let reader = builder.with_projection(mask).with_batch_size(CHUNK_ROWS).build();
                    for batch in reader.map_err(|error| damaged(path, error))? {
                        let batch = batch.map_err(|error| damaged(path, error))?;
                        ranking.add(&batch)?;
                        rows += batch.num_rows() as u32;
                    }
                }
            }
            starts.push(starts[starts.len() - 1] + rows);
        }
        Ok(Merge { table, sources, schema, order: ranking.order(), starts, read })
    }

    /// How many rows there are.
    pub fn count(&self) -> usize {
        self.order.len()
    }

    /// The rows in order, in chunks, of which so many rows at a time are in memory.
    pub fn chunks(&self, rows: usize) -> impl Iterator<Item = Result<RecordBatch, LakeError>> {
        // Chunks are the same whatever fits: the file is.
        let pass = rows.div_ceil(CHUNK_ROWS).max(1) * CHUNK_ROWS;
        let ranges = (0..self.order.len()).step_by(pass).map(move |from| from..self.order.len().min(from + pass));
        ranges.flat_map(move |range| match self.pass(range) {
            Ok(chunks) => chunks.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        })
    }

    fn pass(&self, range: Range<usize>) -> Result<Vec<RecordBatch>, LakeError> {
        let order = &self.order[range];
        let mut wanted = order.to_vec();
        wanted.sort_unstable();
        let mut batches = Vec::with_capacity(self.sources.len());
        // Of each source: where its wanted rows begin among all that are wanted.
        let mut firsts = Vec::with_capacity(self.sources.len());
        for (source, start) in self.sources.iter().zip(self.starts.windows(2)) {
            let first = wanted.partition_point(|row| *row < start[0]);
            let end = wanted.partition_point(|row| *row < start[1]);
            let local: Vec<u32> = wanted[first..end].iter().map(|row| row - start[0]).collect();
            firsts.push(first);
            batches.push(self.rows_of(source, &local)?);
        }
        let batches: Vec<&RecordBatch> = batches.iter().collect();
        let place = |row: &u32| {
            let at = wanted.partition_point(|other| other < row);
            let source = firsts.partition_point(|first| *first <= at) - 1;
            (source, at - firsts[source])
        };
        let chunk = |chunk: &[u32]| {
            let places: Vec<(usize, usize)> = chunk.iter().map(place).collect();
            interleave_record_batch(&batches, &places).map_err(|error| wrong(self.table, error))
        };
        order.chunks(CHUNK_ROWS).map(chunk).collect()
    }

    /// Rows of a source by their numbers, which are in order.
    fn rows_of(&self, source: &Source, rows: &[u32]) -> Result<RecordBatch, LakeError> {
        if rows.is_empty() {
            return Ok(RecordBatch::new_empty(self.schema.clone()));
        }
        match source {
            Source::Here(batches) => {
                let mut parts = Vec::new();
                let (mut start, mut left) = (0, rows);
                for batch in batches {
                    let end = start + batch.num_rows() as u32;
                    let (mine, rest) = left.split_at(left.partition_point(|row| *row < end));
                    left = rest;
                    if !mine.is_empty() {
                        let local = UInt32Array::from_iter_values(mine.iter().map(|row| row - start));
                        let taken = take_record_batch(batch, &local).map_err(|error| wrong(self.table, error))?;
                        parts.push(widen(self.table, &without_dictionaries(self.table, &taken)?, &self.schema)?);
                    }
                    start = end;
                }
                concat_batches(&self.schema, &parts).map_err(|error| wrong(self.table, error))
            }
            Source::There(path) => {
                let builder = open(path, (self.read)(path)?)?;
                let total = builder.metadata().file_metadata().num_rows() as usize;
                let runs = runs(rows);
                let selection = RowSelection::from_consecutive_ranges(runs.into_iter(), total);
                let reader = builder.with_row_selection(selection).with_batch_size(rows.len()).build();
                let parts = reader.map_err(|error| damaged(path, error))?;
                let parts =
                    parts.map(|batch| widen(self.table, &batch.map_err(|error| damaged(path, error))?, &self.schema));
                concat_batches(&self.schema, &parts.collect::<Result<Vec<_>, _>>()?)
                    .map_err(|error| wrong(self.table, error))
            }
        }
    }
}

/// Numbers in order as ranges of neighbours.
fn runs(rows: &[u32]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for row in rows.iter().map(|row| *row as usize) {
        match runs.last_mut() {
            Some(run) if run.end == row => run.end += 1,
            _ => runs.push(row..row + 1),
        }
    }
    runs
}

fn schema_of(
    table: &str,
    source: &Source,
    read: &dyn Fn(&str) -> Result<Vec<u8>, LakeError>,
) -> Result<SchemaRef, LakeError> {
    match source {
        Source::Here(batches) => {
            let widest = batches.iter().max_by_key(|batch| batch.num_columns());
            let widest = widest.ok_or_else(|| wrong(table, "no rows"))?;
            Ok(without_dictionaries(table, &widest.slice(0, 0))?.schema())
        }
        Source::There(path) => {
            let schema = open(path, read(path)?)?.schema().clone();
            // What was read back has no metadata of its own.
            Ok(Arc::new(schema.as_ref().clone().with_metadata(Default::default())))
        }
    }
}
