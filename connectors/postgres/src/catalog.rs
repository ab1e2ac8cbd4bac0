//! PostgreSQL's system tables and functions over the tables of a session, which clients ask before they ask anything else.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::SchemaProvider;
use datafusion::common::{DataFusionError, Result};
use datafusion::datasource::TableType;
use datafusion::execution::context::{SessionConfig, SessionContext};
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};
use datafusion::scalar::ScalarValue;
use datafusion_pg_catalog::pg_catalog::catalog_info::CatalogInfo;
use datafusion_pg_catalog::pg_catalog::context::EmptyContextProvider;
use datafusion_pg_catalog::pg_catalog::{PgCatalogSchemaProvider, PgCatalogStaticTables, setup_pg_catalog};

use crate::statements::VERSION;

/// What lays a catalog over a session.
pub type Overlay = Arc<dyn Fn(&SessionContext) -> Result<()> + Send + Sync>;

/// The catalog of a database with these tables, which is also the name of each session's own catalog. The same tables have the same
/// numbers (OIDs) in every process: clients ask for a table's number first and then for its columns, and another worker may answer that.
///
/// # Errors
/// A system table that can't be made.
pub fn catalog(database: &'static str, tables: impl IntoIterator<Item = (String, SchemaRef)>) -> Result<Overlay> {
    let known = Known { database, tables: Arc::new(tables.into_iter().collect()) };
    let fixed = Arc::new(PgCatalogStaticTables::try_new()?);
    let system: Arc<dyn SchemaProvider> =
        Arc::new(PgCatalogSchemaProvider::try_new(known, fixed, EmptyContextProvider)?);
    number(database, &system)?;
    Ok(Arc::new(move |context| {
        setup_pg_catalog(context, database, EmptyContextProvider).map_err(|error| *error)?;
        context.register_udf(version());
        context.register_udf(to_regtype());
        register(context, database, &system)
    }))
}

/// Drivers read the number out of this text, in PostgreSQL's form.
fn version() -> ScalarUDF {
    let text = format!("PostgreSQL {VERSION} (tidewatch {})", env!("CARGO_PKG_VERSION"));
    let answer = move |_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(ScalarValue::from(text.as_str())));
    create_udf("version", vec![], DataType::Utf8, Volatility::Stable, Arc::new(answer))
}

/// Drivers look for extensions' types by it; there are none.
fn to_regtype() -> ScalarUDF {
    let answer = |_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(ScalarValue::Int32(None)));
    create_udf("to_regtype", vec![DataType::Utf8], DataType::Int32, Volatility::Stable, Arc::new(answer))
}

fn register(context: &SessionContext, database: &str, system: &Arc<dyn SchemaProvider>) -> Result<()> {
    let unknown = || DataFusionError::Internal(format!("a session without the catalog '{database}'"));
    context.catalog(database).ok_or_else(unknown)?.register_schema("pg_catalog", system.clone()).map(drop)
}

/// Numbers are given when a system table is first read, in its order. So the table of tables is, before anybody asks.
fn number(database: &str, system: &Arc<dyn SchemaProvider>) -> Result<()> {
    let config = SessionConfig::new().with_default_catalog_and_schema(database, "public");
    let context = SessionContext::new_with_config(config);
    register(&context, database, system)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { context.table("pg_catalog.pg_class").await?.collect().await }).map(drop)
}

/// The tables that there are, in the order of their names.
#[derive(Debug, Clone)]
struct Known {
    database: &'static str,
    tables: Arc<BTreeMap<String, SchemaRef>>,
}

#[async_trait]
impl CatalogInfo for Known {
    async fn catalog_names(&self) -> Result<Vec<String>> {
        Ok(vec![self.database.to_string()])
    }

    async fn schema_names(&self, _catalog: &str) -> Result<Option<Vec<String>>> {
        Ok(Some(["public", "pg_catalog", "information_schema"].map(str::to_string).to_vec()))
    }

    async fn table_names(&self, _catalog: &str, schema: &str) -> Result<Option<Vec<String>>> {
        let own = || self.tables.keys().cloned().collect();
        Ok(Some(if schema == "public" { own() } else { vec![] }))
    }

    async fn table_schema(&self, _catalog: &str, schema: &str, table: &str) -> Result<Option<SchemaRef>> {
        Ok(self.tables.get(table).filter(|_| schema == "public").cloned())
    }

    async fn table_type(&self, _catalog: &str, schema: &str, table: &str) -> Result<Option<TableType>> {
        Ok((schema == "public" && self.tables.contains_key(table)).then_some(TableType::Base))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::{Field, Int32Type, Schema};

    use super::*;

    /// One number of the first row.
    fn asked(overlay: &Overlay, sql: &str) -> i32 {
        let config = SessionConfig::new().with_default_catalog_and_schema("tidewatch", "public");
        let context = SessionContext::new_with_config(config);
        overlay(&context).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let rows = runtime.block_on(async { context.sql(sql).await.unwrap().collect().await }).unwrap();
        rows.iter().find(|rows| rows.num_rows() > 0).unwrap().column(0).as_primitive::<Int32Type>().value(0)
    }

    #[test]
    fn a_table_has_the_same_number_in_every_session_and_process() {
        let schema = || Arc::new(Schema::new(vec![Field::new("ts", DataType::Int64, false)]));
        let tables = |names: [&str; 3]| names.map(|name| (name.to_string(), schema()));
        let one = catalog("tidewatch", tables(["gpu", "host", "alert_event"])).unwrap();
        let other = catalog("tidewatch", tables(["host", "alert_event", "gpu"])).unwrap();
        let class = "SELECT oid FROM pg_catalog.pg_class WHERE relname = 'host'";
        let attribute = "SELECT attrelid FROM pg_catalog.pg_attribute ORDER BY attrelid DESC";
        assert_eq!(asked(&one, class), asked(&other, class));
        // The columns of the last table, which no question before asked for.
        assert_eq!(asked(&other, attribute), asked(&one, class));
    }
}
