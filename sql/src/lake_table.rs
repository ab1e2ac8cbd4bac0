//! A table of the lake: files that are known with their rows and times, read through the scan port, and rows in memory.
//!
//! What the manifests know plans the question: no file is opened before it is read, and one whose times the question rules out is
//! not opened at all.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, TimestampMicrosecondArray, UInt64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{Column, ColumnStatistics, DFSchema, Result, ScalarValue, Statistics};
use datafusion::config::TableParquetOptions;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::parquet::ParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::parquet::arrow::arrow_reader::ArrowReaderOptions;
use datafusion::parquet::arrow::async_reader::{AsyncFileReader, MetadataFetch};
use datafusion::parquet::errors::ParquetError;
use datafusion::parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::pruning::{PruningPredicateBuilder, PruningStatistics};
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{ExecutionPlan, empty::EmptyExec};
use futures::FutureExt;
use futures::future::BoxFuture;
use tidewatch_model::Timestamp;
use tidewatch_model::ports::{Scan, ScanFile, Snapshot};
use tidewatch_model::table::TIME_COLUMN;

/// What is read of a file's end at first: mostly its footer with the page index, in one request.
const FOOTER_BYTES: usize = 64 << 10;

/// A table at one moment.
pub struct LakeTable {
    snapshot: Snapshot,
    scan: Arc<dyn Scan>,
}

impl fmt::Debug for LakeTable {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        write!(out, "LakeTable({} files)", self.snapshot.files.len())
    }
}

impl LakeTable {
    /// Its files are read through the port. Texts are views into what was read: they are compared and grouped, not copied.
    ///
    /// # Errors
    /// Rows in memory that are not of the table's schema.
    pub fn new(snapshot: Snapshot, scan: Arc<dyn Scan>) -> Result<LakeTable> {
        let field = |field: &Arc<Field>| match field.data_type() {
            DataType::Utf8 => Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8View)),
            _ => field.clone(),
        };
        let schema = Arc::new(Schema::new(snapshot.schema.fields().iter().map(field).collect::<Vec<_>>()));
        let viewed = |batch: RecordBatch| {
            let columns =
                batch.columns().iter().zip(schema.fields()).map(|(column, field)| cast(column, field.data_type()));
            Ok(RecordBatch::try_new(schema.clone(), columns.collect::<Result<Vec<_>, ArrowError>>()?)?)
        };
        let batches = snapshot.batches.into_iter().map(viewed).collect::<Result<Vec<_>>>()?;
        Ok(LakeTable { snapshot: Snapshot { schema, files: snapshot.files, batches }, scan })
    }

    /// Files that may have rows for the question.
    fn files_for(&self, predicate: Option<&Arc<dyn PhysicalExpr>>) -> Vec<&ScanFile> {
        let files = &self.snapshot.files;
        let pruning = predicate.and_then(|predicate| {
            PruningPredicateBuilder::new().with_file_schema(self.snapshot.schema.clone()).build(predicate.clone())
        });
        let kept = pruning.and_then(|pruning| pruning.prune(&Times(files)).ok());
        let kept = kept.unwrap_or_else(|| vec![true; files.len()]);
        files.iter().zip(kept).filter(|(_, kept)| *kept).map(|(file, _)| file).collect()
    }

    fn statistics(&self, files: &[&ScanFile]) -> Statistics {
        let mut statistics = Statistics::new_unknown(&self.snapshot.schema);
        statistics.num_rows = Precision::Exact(files.iter().map(|file| file.rows as usize).sum());
        statistics.total_byte_size = Precision::Inexact(files.iter().map(|file| file.bytes as usize).sum());
        let ends = files.iter().map(|file| file.ts).reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)));
        if let (Some((min, max)), Ok(ts)) = (ends, self.snapshot.schema.index_of(TIME_COLUMN)) {
            let value =
                |ts: Timestamp| Precision::Exact(ScalarValue::TimestampMicrosecond(Some(ts.0), Some("UTC".into())));
            statistics.column_statistics[ts] = ColumnStatistics {
                null_count: Precision::Exact(0),
                min_value: value(min),
                max_value: value(max),
                ..ColumnStatistics::new_unknown()
            };
        }
        statistics
    }
}

/// The times of files, as what rules them out.
struct Times<'a>(&'a [ScanFile]);

impl Times<'_> {
    fn of(&self, column: &Column, end: impl Fn(&ScanFile) -> Timestamp) -> Option<ArrayRef> {
        let times = self.0.iter().map(|file| end(file).0);
        (column.name == TIME_COLUMN)
            .then(|| Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC")) as ArrayRef)
    }
}

impl PruningStatistics for Times<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.of(column, |file| file.ts.0)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.of(column, |file| file.ts.1)
    }

    fn num_containers(&self) -> usize {
        self.0.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        (column.name == TIME_COLUMN).then(|| Arc::new(UInt64Array::from(vec![0; self.0.len()])) as ArrayRef)
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::new(UInt64Array::from_iter_values(self.0.iter().map(|file| file.rows))))
    }

    fn contained(&self, _: &Column, _: &std::collections::HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}

#[async_trait]
impl TableProvider for LakeTable {
    fn schema(&self) -> SchemaRef {
        self.snapshot.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = self.schema();
        let predicate = match conjunction(filters.to_vec()) {
            Some(filter) => {
                let named = DFSchema::try_from(schema.clone())?;
                Some(state.create_physical_expr(filter, &named)?)
            }
            None => None,
        };
        let files = self.files_for(predicate.as_ref());
        let mut plans: Vec<Arc<dyn ExecutionPlan>> = Vec::new();
        if !files.is_empty() {
            let options =
                TableParquetOptions { global: state.config_options().execution.parquet.clone(), ..Default::default() };
            let mut source = ParquetSource::new(schema.clone())
                .with_table_parquet_options(options)
                .with_metadata_size_hint(FOOTER_BYTES)
                .with_parquet_file_reader_factory(Arc::new(Readers(self.scan.clone())));
            if let Some(predicate) = predicate {
                source = source.with_predicate(predicate);
            }
            let whole = self.statistics(&files);
            let parts = state.config().target_partitions().clamp(1, files.len());
            let mut groups = vec![Vec::new(); parts];
            // Files come in order of their windows: each part has its share of every time.
            for (place, file) in files.into_iter().enumerate() {
                groups[place % parts].push(self.partitioned(file));
            }
            let config = FileScanConfigBuilder::new(ObjectStoreUrl::local_filesystem(), Arc::new(source))
                .with_file_groups(groups.into_iter().map(FileGroup::new).collect())
                .with_statistics(whole)
                .with_projection_indices(projection.cloned())?
                .with_limit(limit)
                .build();
            plans.push(DataSourceExec::from_data_source(config));
        }
        if !self.snapshot.batches.is_empty() {
            let rows = [self.snapshot.batches.clone()];
            plans.push(MemorySourceConfig::try_new_exec(&rows, schema.clone(), projection.cloned())?);
        }
        match plans.len() {
            0 => {
                let columns = projection.map(|columns| schema.project(columns)).transpose()?;
                Ok(Arc::new(EmptyExec::new(columns.map_or(schema, Arc::new))))
            }
            1 => Ok(plans.remove(0)),
            _ => UnionExec::try_new(plans),
        }
    }
}

impl LakeTable {
    fn partitioned(&self, file: &ScanFile) -> PartitionedFile {
        PartitionedFile::new(file.path.clone(), file.bytes)
            .with_extension(LakeFile(file.path.clone()))
            .with_statistics(Arc::new(self.statistics(&[file])))
    }
}

/// The path of a file as the port knows it.
struct LakeFile(String);

/// Opens files of the port.
struct Readers(Arc<dyn Scan>);

impl fmt::Debug for Readers {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str("Readers")
    }
}

impl ParquetFileReaderFactory for Readers {
    fn create_reader(
        &self,
        _: usize,
        file: PartitionedFile,
        _: Option<usize>,
        _: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let path = file.extension::<LakeFile>().map(|file| file.0.clone()).unwrap_or_default();
        Ok(Box::new(Reader { scan: self.0.clone(), path, size: file.object_meta.size }))
    }
}

struct Reader {
    scan: Arc<dyn Scan>,
    path: String,
    size: u64,
}

impl Reader {
    fn read(&self, ranges: Vec<Range<u64>>) -> BoxFuture<'static, Result<Vec<bytes::Bytes>, ParquetError>> {
        let (scan, path) = (self.scan.clone(), self.path.clone());
        async move {
            let read = tokio::task::spawn_blocking(move || scan.read(&path, &ranges));
            let parts = read.await.map_err(|error| ParquetError::External(Box::new(error)))?;
            let parts = parts.map_err(|error| ParquetError::External(Box::new(error)))?;
            Ok(parts.into_iter().map(bytes::Bytes::from).collect())
        }
        .boxed()
    }
}

impl AsyncFileReader for Reader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<bytes::Bytes, ParquetError>> {
        self.read(vec![range]).map(|parts| Ok(parts?.remove(0))).boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<bytes::Bytes>, ParquetError>> {
        self.read(ranges)
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        async move {
            let size = self.size;
            let mut reader = ParquetMetaDataReader::new().with_prefetch_hint(Some(FOOTER_BYTES));
            if let Some(options) = options {
                reader = reader
                    .with_column_index_policy(options.column_index_policy())
                    .with_offset_index_policy(options.offset_index_policy());
            }
            Ok(Arc::new(reader.load_and_finish(Fetch(self), size).await?))
        }
        .boxed()
    }
}

/// The reader as what footers are fetched with.
struct Fetch<'a>(&'a mut Reader);

impl MetadataFetch for Fetch<'_> {
    fn fetch(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<bytes::Bytes, ParquetError>> {
        self.0.get_bytes(range)
    }
}
