//! Work of a rule that may panic in somebody else's code: it fails then, and takes nobody along.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use datafusion::common::{Result, exec_err};
use datafusion::physical_plan::PhysicalExpr;

/// Does the work; a panic becomes an error. Nothing that the work changes may be looked at after one.
pub fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let broken = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => return result,
        Err(broken) => broken,
    };
    let said = broken.downcast_ref::<String>().map(String::as_str).or(broken.downcast_ref::<&str>().copied());
    exec_err!("it broke: {}", said.unwrap_or("nobody knows why"))
}

/// The values of an expression over rows.
pub fn values_of(expression: &Arc<dyn PhysicalExpr>, rows: &RecordBatch) -> Result<ArrayRef> {
    guarded(|| expression.evaluate(rows)?.into_array(rows.num_rows()))
}
