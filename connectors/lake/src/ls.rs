//! The lake's files, for readers that want an exact list.

use tidewatch_model::ports::Store;
use tidewatch_model::{Span, Timestamp};

use crate::error::LakeError;
use crate::view::View;

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct LsEntry {
    /// The table.
    pub table: String,
    /// Where it lies in the store.
    pub path: String,
    /// Whether it is public and final; a hot file is neither.
    pub settled: bool,
    /// Start of its window.
    pub window_start: Timestamp,
    /// Length of its window.
    pub window: Span,
    /// Rows.
    pub rows: u64,
    /// Bytes.
    pub bytes: u64,
    /// Smallest ts.
    pub min_ts: Timestamp,
    /// Largest ts.
    pub max_ts: Timestamp,
}

/// The columns of an entry, in order.
pub const LS_COLUMNS: [&str; 9] =
    ["table", "path", "settled", "window_start", "window", "rows", "bytes", "min_ts", "max_ts"];

/// Settled files, and with `fresh` also the hot files that none of them covers: together each committed row once. Only
/// files with rows in `[from, to)` when bounds are given.
///
/// # Errors
/// The store's, or a damaged file.
pub fn ls(
    store: &dyn Store,
    table: Option<&str>,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    fresh: bool,
) -> Result<Vec<LsEntry>, LakeError> {
    let mut view = View::default();
    view.refresh(store)?;
    let mut entries = entries(&view, fresh);
    entries.retain(|entry| {
        table.is_none_or(|table| entry.table == table)
            && from.is_none_or(|from| entry.max_ts >= from)
            && to.is_none_or(|to| entry.min_ts < to)
    });
    entries.sort_by(|left, right| {
        (&left.table, left.window_start, &left.path).cmp(&(&right.table, right.window_start, &right.path))
    });
    Ok(entries)
}

/// The files that count in a view: settled ones, and with `fresh` the hot ones that none of them covers.
pub fn entries(view: &View, fresh: bool) -> Vec<LsEntry> {
    let settled = view.settled().into_values().map(|file| LsEntry {
        table: file.table.clone(),
        path: file.path.clone(),
        settled: true,
        window_start: file.window_start,
        window: file.window,
        rows: file.rows,
        bytes: file.bytes,
        min_ts: file.min_ts,
        max_ts: file.max_ts,
    });
    let hot = if fresh { view.uncovered() } else { vec![] };
    let hot = hot.into_iter().map(|file| LsEntry {
        table: file.table.clone(),
        path: file.path.clone(),
        settled: false,
        window_start: file.window_start,
        window: file.window,
        rows: file.rows,
        bytes: file.bytes,
        min_ts: file.min_ts,
        max_ts: file.max_ts,
    });
    settled.chain(hot).collect()
}
