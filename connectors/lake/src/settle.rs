//! The settler: hot files of a window that is over become one settled file, and settled files of a public window become public
//! ones (compact.rs). Any process may do it, any number of times; the claim, which only one can create, decides what goes in, and
//! its output is a function of the claim alone.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tidewatch_model::alert::hex;
use tidewatch_model::limits::{PUBLIC_FILE_BYTES, SETTLE_BYTES};
use tidewatch_model::ports::{Created, Store};
use tidewatch_model::{Span, Timestamp};

use crate::chain::HotFile;
use crate::claim::{self, Claim, Input, Receipt, SettledFile, VERSION, WindowKey};
use crate::compact;
use crate::error::LakeError;
use crate::kept::KeptRows;
use crate::layout;
use crate::merge::{Merge, Source};
use crate::parquet_files::{Form, Rows, SETTLED_LEVEL, footer_rows, from_bytes, schema_of, settled_to_bytes, to_bytes};
use crate::view::View;

/// When a window is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SettleOptions {
    /// Every partition that carries the table has committed rows this far beyond the window's end.
    pub after_rows: Span,
    /// Or the wall clock is this far beyond it.
    pub after_clock: Span,
    /// Bytes of hot files whose rows are sorted at once; a window of more is sorted in passes over its files.
    pub memory: usize,
    /// Most bytes of a public file that is made of several settled ones; half of it is made public before its window is over.
    pub public_bytes: u64,
}

impl Default for SettleOptions {
    fn default() -> Self {
        SettleOptions {
            after_rows: Span::seconds(30),
            after_clock: Span::minutes(2),
            memory: SETTLE_BYTES,
            public_bytes: PUBLIC_FILE_BYTES,
        }
    }
}

/// What a run of the settler did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SettleReport {
    /// Settled files written.
    pub settled_files: u64,
    /// Rows in them.
    pub settled_rows: u64,
    /// Public files written.
    pub public_files: u64,
    /// Rows in them.
    pub public_rows: u64,
    /// Windows that could not be settled, and why; the others were, and these are tried again.
    pub problems: Vec<String>,
}

/// Settles windows; keeps what it has read between runs.
pub struct Settler {
    store: Arc<dyn Store>,
    options: SettleOptions,
    view: View,
    kept: Option<KeptRows>,
}

impl Settler {
    /// A settler on a store.
    pub fn new(store: Arc<dyn Store>, options: SettleOptions) -> Self {
        Settler { store, options, view: View::default(), kept: None }
    }

    /// The same; rows that a writer of this process has kept are not read again.
    #[must_use]
    pub fn with_kept(self, kept: Option<KeptRows>) -> Self {
        Settler { kept, ..self }
    }

    /// Settles every window that is over, and makes public what is whole; with `force`, every window with committed rows, as at a
    /// clean stop (rows that come later for such a window become its next generation).
    ///
    /// # Errors
    /// The store's, when it can't be listed. A window that can't be settled is a problem in the report and does not hold
    /// up the others.
    pub fn run(&mut self, now: Timestamp, force: bool) -> Result<SettleReport, LakeError> {
        let mut report = SettleReport::default();
        self.view.refresh(self.store.as_ref())?;
        self.settle(now, force, &mut report)?;
        self.compact(now, force, &mut report)?;
        self.view.forget_settled();
        Ok(report)
    }

    fn settle(&mut self, now: Timestamp, force: bool, report: &mut SettleReport) -> Result<(), LakeError> {
        let mut is_new = false;
        for (key, inputs) in self.unclaimed() {
            if force || self.is_over(&key, now) {
                match self.claim(&key, &inputs) {
                    Ok(()) => is_new = true,
                    Err(error) => report.problems.push(error.to_string()),
                }
            }
        }
        if is_new {
            self.view.refresh(self.store.as_ref())?;
        }
        let mut receipts = Vec::new();
        for (path, claim) in self.view.unsettled() {
            match self.execute(path, claim, now) {
                Ok(receipt) => {
                    report.settled_files += 1;
                    report.settled_rows += claim.rows;
                    receipts.push((path.clone(), receipt));
                }
                Err(error) => report.problems.push(error.to_string()),
            }
        }
        self.view.receipts.extend(receipts);
        Ok(())
    }

    fn compact(&mut self, now: Timestamp, force: bool, report: &mut SettleReport) -> Result<(), LakeError> {
        let unclaimed = self.unclaimed().into_values().flatten();
        let hot =
            unclaimed.map(|(_, file)| (file.table, file.window_start.floor(file.public_window), file.public_window));
        let open = hot.chain(self.view.unsettled().map(|(_, claim)| claim.public_key())).collect();
        let due =
            compact::due(&self.view, &open, |key| self.is_over(key, now), self.options.public_bytes / 2, (now, force));
        let is_new = !due.is_empty();
        for (key, files) in due {
            let files = compact::whole(self.store.as_ref(), files, &mut report.problems);
            if files.is_empty() {
                continue;
            }
            if let Err(error) = compact::claim(self.store.as_ref(), &self.view, &key, files, self.options.public_bytes)
            {
                report.problems.push(error.to_string());
            }
        }
        if is_new {
            self.view.refresh(self.store.as_ref())?;
        }
        let mut receipts = Vec::new();
        for (path, compaction) in self.view.uncompacted() {
            match compact::execute(self.store.as_ref(), path, compaction, self.options.memory, now) {
                Ok(receipt) => {
                    report.public_files += receipt.files.len() as u64;
                    report.public_rows += receipt.files.iter().map(|file| file.rows).sum::<u64>();
                    receipts.push((path.clone(), receipt));
                }
                Err(error) => report.problems.push(error.to_string()),
            }
        }
        self.view.compacted.extend(receipts);
        Ok(())
    }

    /// Entries of chains with rows that are in no settled file yet: what a settler holds in memory.
    pub fn open_entries(&self) -> usize {
        self.view.entries.len()
    }

    /// Windows with inputs that no claim has, in order.
    fn unclaimed(&self) -> BTreeMap<WindowKey, Vec<(Input, HotFile)>> {
        let claimed = self.view.claimed();
        let mut open: BTreeMap<WindowKey, Vec<(Input, HotFile)>> = BTreeMap::new();
        for (input, file) in self.view.hot_files() {
            let key = file.key();
            if !self.view.is_expired(&file.table, file.window_start)
                && !claimed.get(&key).is_some_and(|inputs| inputs.contains(&input))
            {
                open.entry(key).or_default().push((input, file.clone()));
            }
        }
        open
    }

    fn is_over(&self, (table, start, window): &WindowKey, now: Timestamp) -> bool {
        let end = *start + *window;
        let by_rows = self.view.reached(table).is_some_and(|reached| reached >= end + self.options.after_rows);
        by_rows || now >= end + self.options.after_clock
    }

    fn claim(&self, key: &WindowKey, inputs: &[(Input, HotFile)]) -> Result<(), LakeError> {
        let (table, start, window) = key;
        let generation = self.view.generation(key) + 1;
        let mut named: Vec<Input> = inputs.iter().map(|(input, _)| input.clone()).collect();
        named.dedup();
        let hash = hex(&Sha256::digest(serde_json::to_vec(&named).unwrap_or_default()));
        let (min_ts, max_ts) = inputs.iter().fold((Timestamp::MAX, Timestamp::MIN), |(min, max), (_, file)| {
            (min.min(file.min_ts), max.max(file.max_ts))
        });
        let claim = Claim {
            version: VERSION,
            table: table.clone(),
            window_start: *start,
            window: *window,
            public_window: inputs.iter().map(|(_, file)| file.public_window).max().unwrap_or(*window),
            generation,
            inputs: named,
            output: layout::settled_file(table, *start, *window, generation, &hash),
            rows: inputs.iter().map(|(_, file)| file.rows).sum(),
            min_ts,
            max_ts,
        };
        let path = layout::claim(table, *start, *window, generation);
        claim::create(self.store.as_ref(), &path, &claim)
    }

    /// Writes a claim's output, and says so.
    fn execute(&self, claim_path: &str, claim: &Claim, now: Timestamp) -> Result<Receipt, LakeError> {
        let bytes = self.output(claim)?;
        let bytes = match self.store.create(&claim.output, &bytes)? {
            Created::Now => bytes,
            // Whoever was first has written it, perhaps with another version of the encoder: what lies there is what counts.
            Created::Exists => self.store.get(&claim.output)?,
        };
        if footer_rows(&claim.output, bytes.clone())? != claim.rows {
            let problem = format!("its footer does not say {} rows, as its claim does", claim.rows);
            return Err(LakeError::Damaged { path: claim.output.clone(), problem });
        }
        let file = SettledFile {
            path: claim.output.clone(),
            table: claim.table.clone(),
            window_start: claim.window_start,
            window: claim.window,
            generation: claim.generation,
            rows: claim.rows,
            bytes: bytes.len() as u64,
            min_ts: claim.min_ts,
            max_ts: claim.max_ts,
            sha256: hex(&Sha256::digest(&bytes)),
            schema: schema_of(&claim.output, bytes)?,
        };
        let receipt = Receipt { version: VERSION, settled_at: now, file };
        let path = layout::receipt(claim_path);
        self.store.create(&path, &claim::bytes(&path, &receipt)?)?;
        Ok(receipt)
    }

    /// What a claim's inputs become.
    fn output(&self, claim: &Claim) -> Result<Vec<u8>, LakeError> {
        let (mut sources, mut bytes) = (Vec::new(), 0);
        let mut hashes: HashMap<String, String> = HashMap::new();
        for input in &claim.inputs {
            let path = layout::chain_entry(&input.topic, input.partition, input.seq);
            let missing =
                || LakeError::Damaged { path: path.clone(), problem: "a claim names it and it is missing".into() };
            let entry = self.view.entries.get(&path).ok_or_else(missing)?;
            for file in entry.files.iter().filter(|file| file.key() == claim.key()) {
                bytes += file.bytes as usize;
                hashes.insert(file.path.clone(), file.sha256.clone());
                let kept = self.kept.as_ref().and_then(|kept| kept.take(&file.path));
                sources.push(kept.map_or_else(|| Source::There(file.path.clone()), Source::Here));
            }
        }
        let read = |path: &str| {
            let bytes = self.store.get(path)?;
            if hashes.get(path).is_some_and(|hash| hex(&Sha256::digest(&bytes)) == *hash) {
                return Ok(bytes);
            }
            let problem = "its content is not what was committed: the window stays unsettled".to_string();
            Err(LakeError::Damaged { path: path.to_string(), problem })
        };
        let facts = [
            ("table", claim.table.clone()),
            ("window_start", claim.window_start.to_string()),
            ("window", claim.window.to_string()),
            ("generation", claim.generation.to_string()),
            ("sources", ranges_of(&claim.inputs)),
            ("rows", claim.rows.to_string()),
        ];
        let (output, rows) = if bytes <= self.options.memory {
            let mut batches = Vec::new();
            for source in sources {
                match source {
                    Source::Here(rows) => batches.extend(rows),
                    Source::There(path) => batches.extend(from_bytes(&path, read(&path)?)?),
                }
            }
            let rows = Rows::new(&claim.table, &batches)?;
            drop(batches);
            (to_bytes(&rows, Form::Settled, &facts)?, rows.count())
        } else {
            let merge = Merge::new(&claim.table, sources, &read)?;
            let fits = (self.options.memory as u64 * claim.rows / (bytes as u64).max(1)) as usize;
            (settled_to_bytes(&claim.table, &merge.schema, &facts, merge.chunks(fits), SETTLED_LEVEL)?, merge.count())
        };
        if rows as u64 != claim.rows {
            let problem = format!("{rows} rows came out of a claim of {}", claim.rows);
            return Err(LakeError::Damaged { path: claim.output.clone(), problem });
        }
        Ok(output)
    }
}

/// Entries, as `topic/partition@first-last` and by commas.
fn ranges_of(inputs: &[Input]) -> String {
    let mut ranges: Vec<(&str, u32, u64, u64)> = Vec::new();
    for Input { topic, partition, seq } in inputs {
        match ranges.last_mut() {
            Some((of, number, _, last)) if of == topic && number == partition && *last + 1 == *seq => *last = *seq,
            _ => ranges.push((topic, *partition, *seq, *seq)),
        }
    }
    let texts = ranges.into_iter().map(|(topic, partition, first, last)| format!("{topic}/{partition}@{first}-{last}"));
    texts.collect::<Vec<_>>().join(",")
}
