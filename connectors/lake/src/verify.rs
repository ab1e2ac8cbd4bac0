//! `lake verify`: the oracle over what lies in the store.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::Serialize;
use sha2::{Digest, Sha256};
use tidewatch_model::alert::hex;
use tidewatch_model::ports::{Store, StoreError};

use crate::chain::Entry;
use crate::claim::{CompactionReceipt, Input, SettledFile, WindowKey};
use crate::error::LakeError;
use crate::layout;
use crate::parquet_files::footer_rows;
use crate::view::View;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// What is wrong; empty when all is well.
    pub problems: Vec<String>,
    /// What is untidy and harms nobody: files of attempts that were never committed, and damaged ones whose rows others have.
    pub orphans: Vec<String>,
    /// Partitions.
    pub partitions: u64,
    /// Entries of their chains.
    pub entries: u64,
    /// Records that they cover.
    pub records: u64,
    /// Committed rows.
    pub rows: u64,
    /// Rows in public files.
    pub public_rows: u64,
    /// Public files.
    pub public_files: u64,
    /// Settled files that no public one has taken in.
    pub settled_files: u64,
    /// Committed hot files.
    pub hot_files: u64,
}

/// Reads everything and checks it: chains contiguous, counts right, every input in at most one claim, every settled file in at most
/// one compaction, outputs' rows those of their inputs, every hash right, no stray file.
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
    check_hot_files(store, &view, &mut report);
    check_claims(&view, &mut report);
    check_compactions(&view, &mut report);
    check_replacing(store, &view, &mut report);
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
        // Below the floor it is settled and gone.
        let floor = view.floors.get(&layout::chain_folder(topic, partition)).copied().unwrap_or(0);
        let (mut seq, mut to) = (floor, 0);
        for entry in entries {
            let at = format!("{topic}/{partition}, entry {}", entry.seq);
            if entry.seq != seq + 1 {
                report.problems.push(format!("{at}: entry {} is missing before it", seq + 1));
            } else if entry.from != to && entry.seq > floor + 1 {
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

fn check_hot_files(store: &dyn Store, view: &View, report: &mut VerifyReport) {
    let needed: HashSet<&str> = view.uncovered().into_iter().map(|file| file.path.as_str()).collect();
    for (_, file) in view.hot_files() {
        let bytes = match store.get(&file.path) {
            Err(StoreError::NotFound(_)) => {
                if needed.contains(file.path.as_str()) {
                    report.problems.push(format!("{}: is committed and missing", file.path));
                }
                continue;
            }
            Err(error) => {
                report.problems.push(error.to_string());
                continue;
            }
            Ok(bytes) => bytes,
        };
        report.hot_files += 1;
        let problem = if hex(&Sha256::digest(&bytes)) != file.sha256 {
            format!("{}: its content is not what was committed", file.path)
        } else if footer_rows(&file.path, bytes).ok() != Some(file.rows) {
            format!("{}: its footer does not say {} rows", file.path, file.rows)
        } else {
            continue;
        };
        match needed.contains(file.path.as_str()) {
            true => report.problems.push(problem),
            false => report.orphans.push(format!("{problem}; its rows are settled, and it will be deleted")),
        }
    }
}

fn check_claims(view: &View, report: &mut VerifyReport) {
    let mut rows: HashMap<(WindowKey, Input), u64> = HashMap::new();
    for (input, file) in view.hot_files() {
        *rows.entry((file.key(), input)).or_default() += file.rows;
    }
    let mut claimed: HashSet<(WindowKey, &Input)> = HashSet::new();
    for (path, claim) in view.claims.iter().filter(|(path, claim)| !view.is_void(path, claim)) {
        let (mut sum, mut is_trimmed) = (0, false);
        for input in &claim.inputs {
            if !claimed.insert((claim.key(), input)) {
                report.problems.push(format!(
                    "{path}: {}/{} entry {} is in another claim too",
                    input.topic, input.partition, input.seq
                ));
            }
            match rows.get(&(claim.key(), input.clone())) {
                Some(count) => sum += count,
                None if view.is_trimmed(input) => is_trimmed = true,
                None => report.problems.push(format!(
                    "{path}: {}/{} entry {} has no rows of the window",
                    input.topic, input.partition, input.seq
                )),
            }
        }
        if sum != claim.rows && !is_trimmed {
            report.problems.push(format!("{path}: claims {} rows, its inputs have {sum}", claim.rows));
        }
        if let Some(receipt) = view.receipts.get(path)
            && (&receipt.file.path, receipt.file.rows) != (&claim.output, claim.rows)
        {
            report
                .problems
                .push(format!("{path}: its receipt is for {} rows in {}", receipt.file.rows, receipt.file.path));
        }
    }
}

fn check_compactions(view: &View, report: &mut VerifyReport) {
    let settled: HashMap<&str, &SettledFile> =
        view.receipts.values().map(|receipt| (receipt.file.path.as_str(), &receipt.file)).collect();
    let mut taken: HashSet<&str> = HashSet::new();
    for (path, made) in view.compactions.iter().filter(|(path, made)| !view.is_vain(path, made)) {
        for input in made.inputs() {
            if !taken.insert(&input.path) {
                report.problems.push(format!("{path}: {} is in another compaction too", input.path));
            }
            if settled.get(input.path.as_str()) != Some(&input) && !view.is_taken(&input.key(), input.generation) {
                report.problems.push(format!("{path}: {} is not what was settled", input.path));
            }
        }
        let expected = made.outputs.iter().map(|output| (output.path.as_str(), output.rows()));
        if let Some(CompactionReceipt { files, .. }) = view.compacted.get(path)
            && !files.iter().map(|file| (file.path.as_str(), file.rows)).eq(expected)
        {
            report.problems.push(format!("{path}: its receipt is for other files"));
        }
    }
}

fn check_replacing(store: &dyn Store, view: &View, report: &mut VerifyReport) {
    for file in view.public().into_values() {
        if check_file(store, file, &mut report.problems) {
            report.public_files += 1;
            report.public_rows += file.rows;
        }
    }
    for file in view.settled() {
        report.settled_files += u64::from(check_file(store, file, &mut report.problems));
    }
}

/// Whether a file that others were replaced by lies there, be it as it may.
fn check_file(store: &dyn Store, file: &SettledFile, problems: &mut Vec<String>) -> bool {
    let SettledFile { path, rows, bytes: size, sha256, .. } = file;
    let bytes = match store.get(path) {
        Err(StoreError::NotFound(_)) => {
            problems.push(format!("{path}: was settled and is missing"));
            return false;
        }
        Err(error) => {
            problems.push(error.to_string());
            return false;
        }
        Ok(bytes) => bytes,
    };
    if hex(&Sha256::digest(&bytes)) != *sha256 || bytes.len() as u64 != *size {
        problems.push(format!("{path}: its content is not what was settled"));
    } else if footer_rows(path, bytes).ok() != Some(*rows) {
        problems.push(format!("{path}: its footer does not say {rows} rows"));
    }
    true
}

fn check_strays(store: &dyn Store, view: &View, report: &mut VerifyReport) -> Result<(), LakeError> {
    let public = view.public();
    let outputs: HashSet<&str> =
        view.uncompacted().flat_map(|(_, made)| &made.outputs).map(|output| output.path.as_str()).collect();
    for (path, _) in store.list(layout::PUBLIC)? {
        let expired = layout::table_and_day_of_public(&path)
            .and_then(|(table, day)| Some(day < view.first_kept.get(table)?.as_str()))
            .unwrap_or(false);
        if !public.contains_key(path.as_str()) && !outputs.contains(path.as_str()) && !expired {
            report.problems.push(format!(
                "{path}: no compaction has this file: a glob over the lake reads rows that were never committed"
            ));
        }
    }
    let claimed: HashSet<&str> = view.claims.values().map(|claim| claim.output.as_str()).collect();
    for (path, _) in store.list(layout::SETTLED)? {
        if !claimed.contains(path.as_str()) {
            report.orphans.push(path);
        }
    }
    let committed: BTreeSet<&str> = view.hot_files().map(|(_, file)| file.path.as_str()).collect();
    for (path, _) in store.list(layout::HOT)? {
        if !committed.contains(path.as_str()) {
            report.orphans.push(path);
        }
    }
    Ok(())
}
