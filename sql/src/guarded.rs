//! Work of a rule that may panic in somebody else's code: it fails then, and takes nobody along.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::{Arc, Once};

use arrow::array::{ArrayRef, RecordBatch};
use datafusion::common::{DataFusionError, Result};
use datafusion::physical_plan::PhysicalExpr;

/// It panicked, and said this.
#[derive(Debug, thiserror::Error)]
#[error("it broke: {0}")]
struct Broken(String);

thread_local! {
    /// Whether this thread does work whose panics are told as errors.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Does the work; a panic becomes an error, and is not printed. Nothing that the work changes may be looked at after one.
pub fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = take_hook();
        set_hook(Box::new(move |panic| {
            if !GUARDED.get() {
                others(panic);
            }
        }));
    });
    let outer = GUARDED.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(outer);
    done.unwrap_or_else(|broken| {
        let said = broken.downcast_ref::<String>().map(String::as_str).or(broken.downcast_ref::<&str>().copied());
        let said = said.unwrap_or("nobody knows why").to_string();
        Err(DataFusionError::External(Box::new(Broken(said))))
    })
}

/// Whether an error was a panic: what panics once is not tried again with each row.
pub fn is_broken(error: &DataFusionError) -> bool {
    matches!(error.find_root(), DataFusionError::External(inner) if inner.is::<Broken>())
}

/// The values of an expression over rows.
pub fn values_of(expression: &Arc<dyn PhysicalExpr>, rows: &RecordBatch) -> Result<ArrayRef> {
    guarded(|| expression.evaluate(rows)?.into_array(rows.num_rows()))
}
