//! Parquet, as every reader that we know of reads it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{SortColumn, SortOptions, cast, concat_batches, lexsort_to_indices, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, TimestampMicrosecondType};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::schema::types::ColumnPath;
use tidewatch_model::Timestamp;
use tidewatch_model::table::{self, TIME_COLUMN};

use crate::error::LakeError;

/// Rows in a row group.
const ROW_GROUP_ROWS: usize = 131_072;
/// Bytes of a page.
const PAGE_BYTES: usize = 1 << 20;
/// Bytes of a bound in the page index.
const INDEX_BYTES: usize = 64;

fn wrong(table: &str, error: impl std::fmt::Display) -> LakeError {
    LakeError::Rows { table: table.to_string(), problem: error.to_string() }
}

/// All rows in one batch, plain text instead of dictionaries, sorted by (identity, ts). Rows that agree in both keep
/// their order, so the same batches give the same bytes.
pub fn merge_sorted(table: &str, batches: &[RecordBatch]) -> Result<RecordBatch, LakeError> {
    let plain = batches.iter().map(|batch| without_dictionaries(table, batch)).collect::<Result<Vec<_>, _>>()?;
    let widest = plain.iter().map(RecordBatch::schema).max_by_key(|schema| schema.fields().len());
    let schema = widest.ok_or_else(|| wrong(table, "no rows"))?;
    let widened = plain.iter().map(|batch| widen(table, batch, &schema)).collect::<Result<Vec<_>, _>>()?;
    let whole = concat_batches(&schema, &widened).map_err(|error| wrong(table, error))?;
    let mut columns: Vec<SortColumn> =
        sort_names(table, &schema).iter().filter_map(|name| whole.column_by_name(name)).map(ascending).collect();
    // Where everything else is equal, the order of arrival: lexsort is not stable by itself.
    let arrival: ArrayRef = Arc::new(UInt32Array::from_iter_values(0..whole.num_rows() as u32));
    columns.push(ascending(&arrival));
    let order = lexsort_to_indices(&columns, None).map_err(|error| wrong(table, error))?;
    take_record_batch(&whole, &order).map_err(|error| wrong(table, error))
}

fn ascending(column: &ArrayRef) -> SortColumn {
    SortColumn { values: column.clone(), options: Some(SortOptions { descending: false, nulls_first: false }) }
}

/// Identity columns that can be compared, then ts.
fn sort_names(table: &str, schema: &Schema) -> Vec<&'static str> {
    let comparable =
        |name: &&str| schema.field_with_name(name).is_ok_and(|field| !matches!(field.data_type(), DataType::Map(_, _)));
    let identity = table::find(table).into_iter().flat_map(|table| table.identity());
    identity.filter(comparable).chain(std::iter::once(TIME_COLUMN)).collect()
}

fn without_dictionaries(table: &str, batch: &RecordBatch) -> Result<RecordBatch, LakeError> {
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
fn widen(table: &str, batch: &RecordBatch, schema: &Arc<Schema>) -> Result<RecordBatch, LakeError> {
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
        None => Ok(arrow::array::new_null_array(field.data_type(), batch.num_rows())),
    });
    RecordBatch::try_new(schema.clone(), columns.collect::<Result<Vec<_>, _>>()?).map_err(|error| wrong(table, error))
}

/// Sorted rows as the bytes of a Parquet file; `facts` go into its footer.
pub fn to_bytes(table: &str, rows: &RecordBatch, facts: &[(&str, String)]) -> Result<Vec<u8>, LakeError> {
    let schema = rows.schema();
    let index_of = |name: &&str| schema.index_of(name).ok();
    let names = sort_names(table, &schema);
    let sorting = names.iter().filter_map(index_of).map(|index| SortingColumn {
        column_idx: index as i32,
        descending: false,
        nulls_first: false,
    });
    let facts = facts.iter().map(|(name, value)| KeyValue::new(format!("tidewatch.{name}"), value.clone()));
    let mut properties = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).map_err(|error| wrong(table, error))?))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_data_page_size_limit(PAGE_BYTES)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_column_index_truncate_length(Some(INDEX_BYTES))
        .set_created_by(concat!("tidewatch version ", env!("CARGO_PKG_VERSION")).to_string())
        .set_sorting_columns(if has_map(&schema) { None } else { Some(sorting.collect()) })
        .set_key_value_metadata(Some(facts.collect()));
    let time = ColumnPath::from(TIME_COLUMN);
    properties = properties
        .set_column_dictionary_enabled(time.clone(), false)
        .set_column_encoding(time, Encoding::DELTA_BINARY_PACKED);
    let mut writer = ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties.build()))
        .map_err(|error| wrong(table, error))?;
    writer.write(rows).map_err(|error| wrong(table, error))?;
    writer.into_inner().map_err(|error| wrong(table, error))
}

/// Sorting columns are numbered by leaf: a map, which has two, would shift those behind it.
fn has_map(schema: &Schema) -> bool {
    schema.fields().iter().any(|field| matches!(field.data_type(), DataType::Map(_, _)))
}

/// The rows of a file.
pub fn from_bytes(path: &str, bytes: Vec<u8>) -> Result<Vec<RecordBatch>, LakeError> {
    let damaged = |error: String| LakeError::Damaged { path: path.to_string(), problem: error };
    let builder =
        ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes)).map_err(|error| damaged(error.to_string()))?;
    let reader = builder.with_batch_size(ROW_GROUP_ROWS).build().map_err(|error| damaged(error.to_string()))?;
    reader.collect::<Result<Vec<_>, _>>().map_err(|error| damaged(error.to_string()))
}

/// Rows that a file's footer says it has.
pub fn footer_rows(path: &str, bytes: Vec<u8>) -> Result<u64, LakeError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes));
    let builder = builder.map_err(|error| LakeError::Damaged { path: path.to_string(), problem: error.to_string() })?;
    Ok(builder.metadata().file_metadata().num_rows() as u64)
}

/// Smallest and largest ts of rows.
pub fn time_range(table: &str, rows: &RecordBatch) -> Result<(Timestamp, Timestamp), LakeError> {
    let times =
        rows.column_by_name(TIME_COLUMN).and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
    let times = times.filter(|times| times.null_count() == 0).ok_or_else(|| wrong(table, "ts is missing or NULL"))?;
    let (min, max) = (times.values().iter().min(), times.values().iter().max());
    min.zip(max).map(|(min, max)| (Timestamp(*min), Timestamp(*max))).ok_or_else(|| wrong(table, "no rows"))
}
