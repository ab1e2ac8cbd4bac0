//! Parquet, as every reader that we know of reads it.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, new_null_array};
use arrow::compute::{cast, concat_batches, interleave_record_batch};
use arrow::datatypes::{
    DataType, Field, FieldRef, Float64Type, Int64Type, Schema, SchemaRef, TimestampMicrosecondType,
};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder, WriterVersion};
use parquet::schema::types::ColumnPath;
use tidewatch_model::Timestamp;
use tidewatch_model::table::{TIME_COLUMN, schema_fingerprint};

use crate::error::LakeError;
use crate::ranking::{Ranking, sort_names};
use crate::size::bytes_of;

/// Rows in a row group.
const ROW_GROUP_ROWS: usize = 131_072;
/// Rows that are written at once: few enough to stay in the cache, enough to forget what each column costs.
pub const CHUNK_ROWS: usize = 8_192;
/// Rows of a batch that is worth no copy.
const LARGE_ROWS: usize = 512;
/// Bytes of a page.
const PAGE_BYTES: usize = 1 << 20;
/// Bytes of a bound in the page index.
const INDEX_BYTES: usize = 64;

/// An error about rows.
pub fn wrong(table: &str, error: impl std::fmt::Display) -> LakeError {
    LakeError::Rows { table: table.to_string(), problem: error.to_string() }
}

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Read a few times within minutes, then replaced: cheap to write. Rows lie as they arrived, nothing is compressed (a
    /// compressor per column costs more than the rows), and only texts are looked up.
    Hot,
    /// Read for years: sorted and small.
    Settled,
}

/// Rows of one schema, to be written without ever lying in memory twice.
pub struct Rows {
    /// The schema of all batches: plain text instead of dictionaries, and every column that any of them has.
    pub schema: SchemaRef,
    table: String,
    batches: Vec<RecordBatch>,
}

impl Rows {
    /// Brings batches to one schema.
    pub fn new(table: &str, batches: &[RecordBatch]) -> Result<Rows, LakeError> {
        let plain = batches.iter().map(|batch| without_dictionaries(table, batch)).collect::<Result<Vec<_>, _>>()?;
        let schema = union(plain.iter().map(RecordBatch::schema)).ok_or_else(|| wrong(table, "no rows"))?;
        let batches = plain.iter().map(|batch| widen(table, batch, &schema)).collect::<Result<Vec<_>, _>>()?;
        Ok(Rows { schema, table: table.to_string(), batches })
    }

    /// How many they are.
    pub fn count(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// Smallest and largest ts.
    pub fn time_range(&self) -> Result<(Timestamp, Timestamp), LakeError> {
        let ranges = self.batches.iter().map(|batch| time_range(&self.table, batch));
        let ranges = ranges.collect::<Result<Vec<_>, _>>()?.into_iter();
        let whole = ranges.reduce(|(min, max), (low, high)| (min.min(low), max.max(high)));
        whole.ok_or_else(|| wrong(&self.table, "no rows"))
    }

    /// As they came: batches that are large enough as they are, without a copy, and small ones in chunks.
    pub fn as_they_came(&self) -> impl Iterator<Item = Result<RecordBatch, LakeError>> {
        let mut left = self.batches.as_slice();
        std::iter::from_fn(move || {
            let (mut rows, mut batches) = (0, 0);
            while batches < left.len() && rows < CHUNK_ROWS && (batches == 0 || left[batches].num_rows() < LARGE_ROWS) {
                rows += left[batches].num_rows();
                batches += 1;
            }
            let (chunk, rest) = left.split_at(batches);
            left = rest;
            (batches > 0).then(|| concat_batches(&self.schema, chunk).map_err(|error| wrong(&self.table, error)))
        })
    }

    /// Sorted by (identity, ts), in chunks. Rows that agree in both keep their order, so the same batches give the same bytes.
    fn sorted(&self) -> Result<impl Iterator<Item = Result<RecordBatch, LakeError>>, LakeError> {
        let mut ranking = Ranking::new(&self.table, &self.schema)?;
        self.batches.iter().try_for_each(|batch| ranking.add(batch))?;
        let order = ranking.order();
        let mut starts = Vec::with_capacity(self.batches.len());
        let mut start = 0;
        for batch in &self.batches {
            starts.push(start);
            start += batch.num_rows();
        }
        let batches: Vec<&RecordBatch> = self.batches.iter().collect();
        let mut from = 0;
        Ok(std::iter::from_fn(move || {
            let chunk = order.get(from..order.len().min(from + CHUNK_ROWS)).filter(|chunk| !chunk.is_empty())?;
            from += chunk.len();
            let place = |row: &u32| {
                let batch = starts.partition_point(|start| *start <= *row as usize) - 1;
                (batch, *row as usize - starts[batch])
            };
            let places: Vec<(usize, usize)> = chunk.iter().map(place).collect();
            Some(interleave_record_batch(&batches, &places).map_err(|error| wrong(&self.table, error)))
        }))
    }
}

/// Every column that any of these has: those of the widest in its order, then what only others have.
pub fn union(schemas: impl IntoIterator<Item = SchemaRef>) -> Option<SchemaRef> {
    let schemas: Vec<SchemaRef> = schemas.into_iter().collect();
    let widest = schemas.iter().max_by_key(|schema| schema.fields().len())?;
    let mut fields: Vec<FieldRef> = widest.fields().iter().cloned().collect();
    for field in schemas.iter().flat_map(|schema| schema.fields()) {
        if !fields.iter().any(|known| known.name() == field.name()) {
            fields.push(Arc::new(field.as_ref().clone().with_nullable(true)));
        }
    }
    Some(if fields.len() == widest.fields().len() { widest.clone() } else { Arc::new(Schema::new(fields)) })
}

pub fn without_dictionaries(table: &str, batch: &RecordBatch) -> Result<RecordBatch, LakeError> {
    if !batch.schema_ref().fields().iter().any(|field| matches!(field.data_type(), DataType::Dictionary(_, _))) {
        return Ok(batch.clone());
    }
    let mut fields = Vec::new();
    let mut columns = Vec::new();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        match field.data_type() {
            DataType::Dictionary(_, value) => {
                columns.push(cast(column, value).map_err(|error| wrong(table, error))?);
                fields.push(Arc::new(Field::new(field.name(), value.as_ref().clone(), field.is_nullable())));
            }
            _ => {
                columns.push(column.clone());
                fields.push(field.clone());
            }
        }
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|error| wrong(table, error))
}

/// Older rows lack columns that newer ones have.
pub fn widen(table: &str, batch: &RecordBatch, schema: &Arc<Schema>) -> Result<RecordBatch, LakeError> {
    if batch.schema_ref() == schema {
        return Ok(batch.clone());
    }
    let columns = schema.fields().iter().map(|field| match batch.column_by_name(field.name()) {
        Some(column) if column.data_type() == field.data_type() => Ok(column.clone()),
        Some(column) => Err(wrong(
            table,
            format!(
                "column '{}' is {} in one file and {} in another",
                field.name(),
                column.data_type(),
                field.data_type()
            ),
        )),
        None => Ok(new_null_array(field.data_type(), batch.num_rows())),
    });
    RecordBatch::try_new(schema.clone(), columns.collect::<Result<Vec<_>, _>>()?).map_err(|error| wrong(table, error))
}

/// Rows as the bytes of a Parquet file; `facts` go into its footer.
pub fn to_bytes(rows: &Rows, form: Form, facts: &[(&str, String)]) -> Result<Vec<u8>, LakeError> {
    let (table, schema) = (rows.table.as_str(), &rows.schema);
    match form {
        Form::Hot => {
            let bytes = rows.batches.iter().map(bytes_of).sum();
            write_chunks(table, schema, hot_properties(schema, facts), rows.as_they_came(), bytes)
        }
        Form::Settled => settled_to_bytes(table, schema, facts, rows.sorted()?, SETTLED_LEVEL),
    }
}

/// The fact that says what Arrow's types were.
pub const ARROW_SCHEMA: &str = "ARROW:schema";

fn properties(facts: &[(&str, String)], more: Option<KeyValue>) -> WriterPropertiesBuilder {
    let facts = facts.iter().map(|(name, value)| KeyValue::new(format!("tidewatch.{name}"), value.clone()));
    let facts = facts.chain(more);
    WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_data_page_size_limit(PAGE_BYTES)
        .set_column_index_truncate_length(Some(INDEX_BYTES))
        .set_created_by(concat!("tidewatch version ", env!("CARGO_PKG_VERSION")).to_string())
        .set_key_value_metadata(Some(facts.collect()))
}

/// Rows in a row group of a hot file: its pages lie in memory until the group is written, and few of them are reused.
const HOT_GROUP_ROWS: usize = 16_384;

fn hot_properties(schema: &Schema, facts: &[(&str, String)]) -> WriterPropertiesBuilder {
    let mut properties = properties(facts, None)
        // Without the version: a later one that is asked to mend a file makes the same bytes.
        .set_created_by("tidewatch".to_string())
        .set_max_row_group_row_count(Some(HOT_GROUP_ROWS))
        .set_compression(Compression::UNCOMPRESSED)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_dictionary_enabled(false);
    for field in schema.fields().iter().filter(|field| *field.data_type() == DataType::Utf8) {
        properties = properties.set_column_dictionary_enabled(ColumnPath::from(field.name().as_str()), true);
    }
    properties
}

/// Chunks that come in order as the bytes of a settled file.
pub fn settled_to_bytes(
    table: &str,
    schema: &SchemaRef,
    facts: &[(&str, String)],
    mut chunks: impl Iterator<Item = Result<RecordBatch, LakeError>>,
    level: i32,
) -> Result<Vec<u8>, LakeError> {
    let mut properties = settled_properties(table, schema, facts, None, level)?;
    let first = chunks.next().transpose()?;
    if let Some(first) = &first {
        properties = encodings(table, first, properties)?;
    }
    write_chunks(table, schema, properties, first.into_iter().map(Ok).chain(chunks), 0)
}

/// How settled and public files are written; with a fact more, as it is.
pub fn settled_properties(
    table: &str,
    schema: &SchemaRef,
    facts: &[(&str, String)],
    more: Option<KeyValue>,
    level: i32,
) -> Result<WriterPropertiesBuilder, LakeError> {
    let names = sort_names(table, schema);
    let sorting = names.iter().filter_map(|name| schema.index_of(name).ok()).map(|index| SortingColumn {
        column_idx: index as i32,
        descending: false,
        nulls_first: false,
    });
    Ok(properties(facts, more)
        .set_compression(compression(table, level)?)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_sorting_columns(if has_map(schema) { None } else { Some(sorting.collect()) }))
}

fn write_chunks(
    table: &str,
    schema: &SchemaRef,
    properties: WriterPropertiesBuilder,
    chunks: impl Iterator<Item = Result<RecordBatch, LakeError>>,
    expected_bytes: usize,
) -> Result<Vec<u8>, LakeError> {
    // A vector that grows is touched twice.
    let mut writer = ArrowWriter::try_new(Vec::with_capacity(expected_bytes), schema.clone(), Some(properties.build()))
        .map_err(|error| wrong(table, error))?;
    for chunk in chunks {
        writer.write(&chunk?).map_err(|error| wrong(table, error))?;
    }
    writer.into_inner().map_err(|error| wrong(table, error))
}

/// A dictionary is of use where values repeat: where most of the first rows' values differ, it is filled, found to be of no use
/// and written all the same. What is best then is found by trying: differences of integers are small where they are counters, and of floats
/// the high bytes are alike; but a time that eight GPUs share, or watts with three decimals, are patterns that a compressor finds only
/// in values as they are.
fn encodings(
    table: &str,
    first: &RecordBatch,
    mut properties: WriterPropertiesBuilder,
) -> Result<WriterPropertiesBuilder, LakeError> {
    for (field, column) in first.schema().fields().iter().zip(first.columns()) {
        let (bits, other): (Vec<u64>, Encoding) = match field.data_type() {
            DataType::Int64 => {
                let values = column.as_primitive::<Int64Type>().iter().flatten();
                (values.map(|value| value as u64).collect(), Encoding::DELTA_BINARY_PACKED)
            }
            DataType::Timestamp(..) => {
                let values = column.as_primitive::<TimestampMicrosecondType>().iter().flatten();
                (values.map(|value| value as u64).collect(), Encoding::DELTA_BINARY_PACKED)
            }
            DataType::Float64 => {
                let values = column.as_primitive::<Float64Type>().iter().flatten();
                (values.map(f64::to_bits).collect(), Encoding::BYTE_STREAM_SPLIT)
            }
            _ => continue,
        };
        let distinct: HashSet<u64> = bits.iter().copied().collect();
        if distinct.len() * 2 > bits.len() || field.name() == TIME_COLUMN {
            let best = if bytes_as(table, column, other)? <= bytes_as(table, column, Encoding::PLAIN)? {
                other
            } else {
                Encoding::PLAIN
            };
            let path = ColumnPath::from(field.name().as_str());
            properties = properties.set_column_dictionary_enabled(path.clone(), false).set_column_encoding(path, best);
        }
    }
    Ok(properties)
}

/// How large a column becomes in an encoding.
fn bytes_as(table: &str, column: &ArrayRef, encoding: Encoding) -> Result<usize, LakeError> {
    let batch = RecordBatch::try_from_iter([("x", column.clone())]).map_err(|error| wrong(table, error))?;
    let properties = WriterProperties::builder()
        .set_compression(compression(table, SETTLED_LEVEL)?)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_dictionary_enabled(false)
        .set_encoding(encoding);
    let schema = batch.schema();
    Ok(write_chunks(table, &schema, properties, std::iter::once(Ok(batch)), 0)?.len())
}

/// The level of zstd for what is written on the way: it takes a tenth more time than level 1 and saves a twentieth of the bytes.
pub const SETTLED_LEVEL: i32 = 3;
/// For what is few and stays: twice the time of level 3, and up to a tenth of the bytes.
pub const PUBLIC_LEVEL: i32 = 9;

fn compression(table: &str, level: i32) -> Result<Compression, LakeError> {
    Ok(Compression::ZSTD(ZstdLevel::try_new(level).map_err(|error| wrong(table, error))?))
}

/// Sorting columns are numbered by leaf: a map, which has two, would shift those behind it.
fn has_map(schema: &Schema) -> bool {
    schema.fields().iter().any(|field| matches!(field.data_type(), DataType::Map(_, _)))
}

/// A file, to be read.
pub fn open(path: &str, bytes: Vec<u8>) -> Result<ParquetRecordBatchReaderBuilder<Bytes>, LakeError> {
    ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes)).map_err(|error| damaged(path, error))
}

/// An error about a file.
pub fn damaged(path: &str, error: impl std::fmt::Display) -> LakeError {
    LakeError::Damaged { path: path.to_string(), problem: error.to_string() }
}

/// The rows of a file.
pub fn from_bytes(path: &str, bytes: Vec<u8>) -> Result<Vec<RecordBatch>, LakeError> {
    let reader = open(path, bytes)?.with_batch_size(ROW_GROUP_ROWS).build().map_err(|error| damaged(path, error))?;
    reader.collect::<Result<Vec<_>, _>>().map_err(|error| damaged(path, error))
}

/// The fingerprint of a file's schema.
pub fn schema_of(path: &str, bytes: Vec<u8>) -> Result<String, LakeError> {
    // What was read back has the footer's facts as metadata, which differ.
    let schema = open(path, bytes)?.schema().as_ref().clone().with_metadata(Default::default());
    Ok(schema_fingerprint(&schema))
}

/// Rows that a file's footer says it has.
pub fn footer_rows(path: &str, bytes: Vec<u8>) -> Result<u64, LakeError> {
    Ok(open(path, bytes)?.metadata().file_metadata().num_rows() as u64)
}

/// Smallest and largest ts of rows.
pub fn time_range(table: &str, rows: &RecordBatch) -> Result<(Timestamp, Timestamp), LakeError> {
    let times =
        rows.column_by_name(TIME_COLUMN).and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
    let times = times.filter(|times| times.null_count() == 0).ok_or_else(|| wrong(table, "ts is missing or NULL"))?;
    let (min, max) = (times.values().iter().min(), times.values().iter().max());
    min.zip(max).map(|(min, max)| (Timestamp(*min), Timestamp(*max))).ok_or_else(|| wrong(table, "no rows"))
}
