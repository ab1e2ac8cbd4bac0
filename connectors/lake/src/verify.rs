//! `lake verify`: the oracle over what lies in the store.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::Serialize;
use sha2::{Digest, Sha256};
use tidewatch_model::alert::hex;
use tidewatch_model::ports::{Store, StoreError};

use crate::chain::Entry;
use crate::error::LakeError;
use crate::layout;
use crate::parquet_files::footer_rows;
use crate::view::{Claim, Input, Receipt, View, WindowKey};

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// What is wrong; empty when all is well.
    pub problems: Vec<String>,
    /// What is untidy and harms nobody: files of attempts that were never committed.
    pub orphans: Vec<String>,
    /// Partitions.
    pub partitions: u64,
    /// Entries of their chains.
    pub entries: u64,
    /// Records that they cover.
    pub records: u64,
    /// Committed rows.
    pub rows: u64,
    /// Of which in public files.
    pub settled_rows: u64,
    /// Public files.
    pub settled_files: u64,
    /// Committed hot files.
    pub hot_files: u64,
}

/// Reads everything and checks it: chains contiguous, counts right, every input in at most one claim, outputs' rows those
/// of their inputs, every hash right, no stray file.
///
/// # Errors
/// Only when the store itself can't be read; whatever it holds is a problem in the report.
pub fn verify(store: &dyn Store) -> Result<VerifyReport, LakeError> {
    let mut report = VerifyReport::default();
    let mut view = View::default();
    if let Err(error) = view.refresh(store) {
        report.problems.push(error.to_string());
        if matches!(error, LakeError::Store(StoreError::Io { .. })) {
            return Err(error);
        }
    }
    check_chains(&view, &mut report);
    check_hot_files(store, &view, &mut report)?;
    check_claims(store, &view, &mut report)?;
    check_strays(store, &view, &mut report)?;
    Ok(report)
}

fn check_chains(view: &View, report: &mut VerifyReport) {
    let mut chains: BTreeMap<(&str, u32), Vec<&Entry>> = BTreeMap::new();
    for entry in view.entries.values() {
        chains.entry((&entry.topic, entry.partition)).or_default().push(entry);
    }
    report.partitions = chains.len() as u64;
    for ((topic, partition), entries) in chains {
        let (mut seq, mut to) = (0, 0);
        for entry in entries {
            let at = format!("{topic}/{partition}, entry {}", entry.seq);
            if entry.seq != seq + 1 {
                report.problems.push(format!("{at}: entry {} is missing before it", seq + 1));
            } else if entry.from != to && entry.seq > 1 {
                // A chain may begin behind what nobody asked for.
                report.problems.push(format!("{at}: begins at offset {}, the one before ends at {to}", entry.from));
            }
            if entry.to < entry.from {
                report.problems.push(format!("{at}: ends at offset {} before it begins at {}", entry.to, entry.from));
            }
            let counts = entry.counts;
            if counts.records + counts.missing != entry.to - entry.from.min(entry.to) {
                report.problems.push(format!(
                    "{at}: {} records and {} missing offsets in {}..{}",
                    counts.records, counts.missing, entry.from, entry.to
                ));
            }
            let rows: u64 = entry.files.iter().map(|file| file.rows).sum();
            if rows != counts.rows {
                report.problems.push(format!("{at}: {rows} rows in files, {} counted", counts.rows));
            }
            (seq, to) = (entry.seq, entry.to);
            report.entries += 1;
            report.records += counts.records;
            report.rows += rows;
        }
    }
}

fn check_hot_files(store: &dyn Store, view: &View, report: &mut VerifyReport) -> Result<(), LakeError> {
    for (_, file) in view.hot_files() {
        report.hot_files += 1;
        let bytes = match store.get(&file.path) {
            Err(StoreError::NotFound(_)) => {
                report.problems.push(format!("{}: is committed and missing", file.path));
                continue;
            }
            bytes => bytes?,
        };
        if hex(&Sha256::digest(&bytes)) != file.sha256 {
            report.problems.push(format!("{}: its content is not what was committed", file.path));
        } else if footer_rows(&file.path, bytes).ok() != Some(file.rows) {
            report.problems.push(format!("{}: its footer does not say {} rows", file.path, file.rows));
        }
    }
    Ok(())
}

fn check_claims(store: &dyn Store, view: &View, report: &mut VerifyReport) -> Result<(), LakeError> {
    let mut rows: HashMap<(WindowKey, Input), u64> = HashMap::new();
    for (input, file) in view.hot_files() {
        *rows.entry(((file.table.clone(), file.window_start, file.window), input)).or_default() += file.rows;
    }
    let mut claimed: HashSet<(WindowKey, &Input)> = HashSet::new();
    for (path, claim) in &view.claims {
        let key = (claim.table.clone(), claim.window_start, claim.window);
        let mut sum = 0;
        for input in &claim.inputs {
            if !claimed.insert((key.clone(), input)) {
                report.problems.push(format!(
                    "{path}: {}/{} entry {} is in another claim too",
                    input.topic, input.partition, input.seq
                ));
            }
            match rows.get(&(key.clone(), input.clone())) {
                Some(count) => sum += count,
                None => report.problems.push(format!(
                    "{path}: {}/{} entry {} has no rows of the window",
                    input.topic, input.partition, input.seq
                )),
            }
        }
        if sum != claim.rows {
            report.problems.push(format!("{path}: claims {} rows, its inputs have {sum}", claim.rows));
        }
        check_output(store, claim, report)?;
    }
    Ok(())
}

fn check_output(store: &dyn Store, claim: &Claim, report: &mut VerifyReport) -> Result<(), LakeError> {
    let receipt = layout::receipt(&claim.table, claim.window_start, claim.window, claim.generation);
    let receipt: Option<Receipt> = match store.get(&receipt) {
        Err(StoreError::NotFound(_)) => None,
        bytes => serde_json::from_slice(&bytes?).ok(),
    };
    // The store is asked again, since the output may have come after the list was made.
    let bytes = match store.get(&claim.output) {
        Err(StoreError::NotFound(_)) => {
            if receipt.is_some() {
                report.problems.push(format!("{}: was settled and is missing", claim.output));
            }
            return Ok(());
        }
        bytes => bytes?,
    };
    report.settled_files += 1;
    report.settled_rows += claim.rows;
    let hash = hex(&Sha256::digest(&bytes));
    if receipt.is_some_and(|receipt| receipt.sha256 != hash || receipt.bytes != bytes.len() as u64) {
        report.problems.push(format!("{}: its content is not what was settled", claim.output));
    } else if footer_rows(&claim.output, bytes).ok() != Some(claim.rows) {
        report.problems.push(format!("{}: its footer does not say {} rows", claim.output, claim.rows));
    }
    Ok(())
}

fn check_strays(store: &dyn Store, view: &View, report: &mut VerifyReport) -> Result<(), LakeError> {
    let outputs: BTreeSet<&str> = view.claims.values().map(|claim| claim.output.as_str()).collect();
    for path in view.public.keys().filter(|path| !outputs.contains(path.as_str())) {
        report
            .problems
            .push(format!("{path}: no claim has this file: a glob over the lake reads rows that were never committed"));
    }
    let committed: BTreeSet<&str> = view.hot_files().map(|(_, file)| file.path.as_str()).collect();
    for (path, _) in store.list(layout::HOT)? {
        if !committed.contains(path.as_str()) {
            report.orphans.push(path);
        }
    }
    Ok(())
}
