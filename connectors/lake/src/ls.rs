//! The lake's files, for readers that want an exact list.

use tidewatch_model::ports::Store;
use tidewatch_model::{Span, Timestamp};

use crate::claim::SettledFile;
use crate::error::LakeError;
use crate::view::View;

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct LsEntry {
    /// The table.
    pub table: String,
    /// Where it lies in the store.
    pub path: String,
    /// What it is.
    pub kind: FileKind,
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

/// What a file of the lake is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FileKind {
    /// Final: a plain glob finds it.
    Public,
    /// Sorted and small; a public file will take it in.
    Settled,
    /// Committed as it came; a settled file will take it in.
    Hot,
}

impl FileKind {
    /// `public`, `settled` or `hot`.
    pub fn name(self) -> &'static str {
        match self {
            FileKind::Public => "public",
            FileKind::Settled => "settled",
            FileKind::Hot => "hot",
        }
    }
}

/// The columns of an entry, in order.
pub const LS_COLUMNS: [&str; 9] =
    ["table", "path", "kind", "window_start", "window", "rows", "bytes", "min_ts", "max_ts"];

/// Public files, and with `fresh` also the settled and hot files that none of them has taken in: together each committed row once. Only
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

/// The files that count in a view: public ones, and with `fresh` the settled and hot ones that no other has taken in.
pub fn entries(view: &View, fresh: bool) -> Vec<LsEntry> {
    let replacing = |kind: FileKind, file: &SettledFile| LsEntry {
        table: file.table.clone(),
        path: file.path.clone(),
        kind,
        window_start: file.window_start,
        window: file.window,
        rows: file.rows,
        bytes: file.bytes,
        min_ts: file.min_ts,
        max_ts: file.max_ts,
    };
    let mut entries: Vec<LsEntry> = view.public().into_values().map(|file| replacing(FileKind::Public, file)).collect();
    if fresh {
        entries.extend(view.settled().into_iter().map(|file| replacing(FileKind::Settled, file)));
        entries.extend(view.uncovered().into_iter().map(|file| LsEntry {
            table: file.table.clone(),
            path: file.path.clone(),
            kind: FileKind::Hot,
            window_start: file.window_start,
            window: file.window,
            rows: file.rows,
            bytes: file.bytes,
            min_ts: file.min_ts,
            max_ts: file.max_ts,
        }));
    }
    entries
}
