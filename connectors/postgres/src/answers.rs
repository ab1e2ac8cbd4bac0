//! Who answers statements.

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};

use crate::statements::Statement;

/// What an answer will look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Its columns.
    pub columns: SchemaRef,
    /// What `$1`, `$2`, ... are.
    pub parameters: Vec<DataType>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// Too many others are being answered.
    #[error("{0}")]
    Busy(String),
    /// It took too long, or nobody wants it any more.
    #[error("{0}")]
    Ended(String),
    /// It is wrong, or failed, and this is its SQLSTATE.
    #[error("{1}")]
    Refused(String, String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

/// Answers statements; each call blocks its thread.
pub trait Answers: Send + Sync + 'static {
    /// What a text says: [`crate::parse`], where it may take as long and as much as it likes.
    ///
    /// # Errors
    /// What is wrong with it, or why nobody can say.
    fn parse(&self, sql: &str) -> Result<Vec<Statement>, Unanswered>;

    /// Says what an answer will look like.
    ///
    /// # Errors
    /// A wrong statement, or why nobody can say.
    fn describe(&self, sql: &str) -> Result<Shape, Unanswered>;

    /// Answers a statement with values for its parameters as texts, `None` for NULL. The first batch may be empty: it carries the schema of an
    /// answer without rows. `None` is handed over now and then while there is nothing: whoever asked may say then that it wants no more.
    ///
    /// # Errors
    /// Why there is no answer, or only a part of one.
    fn answer(
        &self,
        sql: &str,
        parameters: &[Option<String>],
        take: &mut dyn FnMut(Option<RecordBatch>) -> Result<(), String>,
    ) -> Result<(), Unanswered>;
}
