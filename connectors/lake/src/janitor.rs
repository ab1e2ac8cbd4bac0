//! The janitor: deletes what is not needed any more. Any process may do it, at any time, and die at any point of it.
//!
//! What is deleted was first made superfluous by something that is created once: hot files by a receipt, settled files by
//! that of a compaction, entries of a chain by a floor, claims and compactions by a manifest, days by a word on retention.
//! Readers know these before they miss what is gone.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use serde::Serialize;
use tidewatch_model::ports::{Created, Store, StoreError};
use tidewatch_model::{Span, Timestamp};

use crate::chain::{Entry, Floor, HotFile, floor_among};
use crate::claim::{
    self, Compaction, CompactionReceipt, Input, Manifest, Retention, SettledFile, Taken, VERSION, WindowKey,
};
use crate::error::LakeError;
use crate::layout;
use crate::view::View;

/// How long things stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JanitorOptions {
    /// Files that readers need no more stay so much longer: the longest question that began before.
    pub grace: Span,
    /// Files of days that lie wholly this far back are deleted; `None` keeps them for ever.
    pub retention: Option<Span>,
}

impl Default for JanitorOptions {
    fn default() -> Self {
        JanitorOptions { grace: Span::hours(2), retention: None }
    }
}

/// What a run deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct JanitorReport {
    /// Hot files whose rows are settled.
    pub hot_files: u64,
    /// Settled files whose rows are public.
    pub settled_files: u64,
    /// Files of attempts that were never committed.
    pub orphans: u64,
    /// Entries of chains.
    pub entries: u64,
    /// Claims whose settled files a manifest calls taken.
    pub claims: u64,
    /// Public files of days that are not kept.
    pub expired_files: u64,
}

impl JanitorReport {
    /// How many files that is.
    pub fn files(&self) -> u64 {
        self.hot_files + self.settled_files + self.orphans + self.entries + self.claims + self.expired_files
    }
}

/// Deletes what is not needed. It goes by its own clock: what a receipt says of the time was true when its settler began, which may
/// have slept since. Grace begins at the round after the one that saw a receipt.
pub struct Janitor {
    store: Arc<dyn Store>,
    options: JanitorOptions,
    view: View,
    /// By the path of a claim or compaction with a receipt, or of a word on retention: from when it was surely known.
    known: HashMap<String, Timestamp>,
    /// Seen at the last round for the first time.
    seen: BTreeSet<String>,
}

/// The first day that is kept, of each table that does not keep all.
type DaysGone = BTreeMap<String, String>;

impl Janitor {
    /// On a store.
    pub fn new(store: Arc<dyn Store>, options: JanitorOptions) -> Janitor {
        Janitor { store, options, view: View::default(), known: HashMap::new(), seen: BTreeSet::new() }
    }

    /// One round.
    ///
    /// # Errors
    /// The store's, or a damaged file: what was not deleted is deleted at the next round.
    pub fn run(&mut self, now: Timestamp) -> Result<JanitorReport, LakeError> {
        let mut report = JanitorReport::default();
        // What was read before is not read again; a round that fails begins anew.
        let mut view = std::mem::take(&mut self.view);
        let seen = std::mem::take(&mut self.seen);
        self.known.extend(seen.into_iter().map(|path| (path, now)));
        view.refresh(self.store.as_ref())?;
        self.say_retention(&mut view, now)?;
        let words: BTreeSet<String> = self.store.list(layout::RETENTION)?.into_iter().map(|(path, _)| path).collect();
        let is_there = |path: &String| {
            view.receipts.contains_key(path) || view.compacted.contains_key(path) || words.contains(path)
        };
        self.known.retain(|path, _| is_there(path));
        let new = view
            .receipts
            .keys()
            .chain(view.compacted.keys())
            .chain(&words)
            .filter(|path| !self.known.contains_key(*path));
        self.seen = new.cloned().collect();
        let gone = self.days_gone(&words, now)?;
        for (table, first_kept) in &gone {
            report.expired_files += self.delete_days(&view, table, first_kept)?;
        }
        let lying = self.delete_hot_files(&view, &gone, now, &mut report)?;
        self.trim(&view, &gone, &lying, &mut report)?;
        let lying = self.delete_settled_files(&view, &gone, now, &mut report)?;
        self.fold(&view, &lying, &mut report)?;
        self.delete_lone_receipts(&view)?;
        self.view = view;
        Ok(report)
    }

    /// Says which days are not kept any more.
    fn say_retention(&self, view: &mut View, now: Timestamp) -> Result<(), LakeError> {
        let Some(retention) = self.options.retention else { return Ok(()) };
        let first_kept = now.saturating_sub(retention).date();
        // A clock that has jumped makes rows of one day far ahead. Nothing goes before two days are kept.
        let days: BTreeSet<String> = view.public().into_values().map(|file| file.window_start.date()).collect();
        if days.iter().rev().nth(1).is_none_or(|second| *second < first_kept) {
            return Ok(());
        }
        let is_old = |day: &str| day < first_kept.as_str();
        let manifests = view.manifests.keys().filter_map(|path| layout::table_and_day(layout::MANIFEST, path));
        let mut old: BTreeSet<String> =
            manifests.filter(|(_, day)| is_old(day)).map(|(table, _)| table.to_string()).collect();
        let claims = view.claims.values().filter(|claim| is_old(&claim.window_start.date()));
        old.extend(claims.map(|claim| claim.table.clone()));
        let compactions = view.compactions.values().filter(|made| is_old(&made.window_start.date()));
        old.extend(compactions.map(|made| made.table.clone()));
        for table in old {
            let path = layout::retention(&table, &first_kept);
            let word = Retention { version: VERSION, first_kept: first_kept.clone() };
            self.store.create(&path, &claim::bytes(&path, &word)?)?;
            view.first_kept.insert(table, first_kept.clone());
        }
        Ok(())
    }

    /// The first day that is kept of each table of which everybody had time to hear it.
    fn days_gone(&self, words: &BTreeSet<String>, now: Timestamp) -> Result<DaysGone, LakeError> {
        let mut gone = DaysGone::new();
        for path in words.iter().filter(|path| self.is_old(path, now)) {
            let Some((table, day)) = layout::table_and_day(layout::RETENTION, path) else { continue };
            // In order of the days: an earlier word is part of a later one.
            if let Some(earlier) = gone.insert(table.to_string(), day.to_string()) {
                self.store.delete(&layout::retention(table, &earlier))?;
            }
        }
        Ok(gone)
    }

    /// Whether everybody who does not know of something has had time to end.
    fn is_old(&self, path: &str, now: Timestamp) -> bool {
        self.known.get(path).is_some_and(|since| now - *since >= self.options.grace)
    }

    /// Deletes everything of a table's days before one. Public files are looked for where they lie: one that was written by
    /// somebody who slept while its day went is deleted too.
    fn delete_days(&self, view: &View, table: &str, first_kept: &str) -> Result<u64, LakeError> {
        let mut deleted = 0;
        for (path, _) in self.store.list(&layout::table_folder(table))? {
            if layout::table_and_day_of_public(&path).is_some_and(|(_, day)| day < first_kept) {
                self.store.delete(&path)?;
                deleted += 1;
            }
        }
        for (path, claim) in &view.claims {
            if claim.table == table && claim.window_start.date().as_str() < first_kept {
                self.delete_claim(path)?;
            }
        }
        for (path, made) in &view.compactions {
            if made.table == table && made.window_start.date().as_str() < first_kept {
                self.delete_claim(path)?;
            }
        }
        for path in view.manifests.keys() {
            if layout::table_and_day(layout::MANIFEST, path).is_some_and(|(of, day)| of == table && day < first_kept) {
                self.store.delete(path)?;
            }
        }
        Ok(deleted)
    }

    /// The claim first: a receipt without one means nothing, a claim without one means work.
    fn delete_claim(&self, path: &str) -> Result<(), LakeError> {
        self.store.delete(path)?;
        self.store.delete(&layout::receipt(path))?;
        Ok(())
    }

    /// Deletes hot files whose rows have been settled for a while, and files that no entry names and none ever will. Returns
    /// those that still lie there.
    fn delete_hot_files(
        &self,
        view: &View,
        gone: &DaysGone,
        now: Timestamp,
        report: &mut JanitorReport,
    ) -> Result<BTreeSet<String>, LakeError> {
        let covered = view.covered(|path| self.is_old(path, now));
        let (mut named, mut needed) = (HashSet::new(), HashSet::new());
        for (input, file) in view.hot_files() {
            named.insert(file.path.as_str());
            if !is_settled(&covered, gone, &input, file) {
                needed.insert(file.path.as_str());
            }
        }
        let ends = view.ends();
        let mut lying = BTreeSet::new();
        for (path, _) in self.store.list(layout::HOT)? {
            // Beyond the chain's end it may be under way; up to it, its place is taken.
            let end = layout::chain_of_hot(&path).and_then(|chain| ends.get(&chain));
            let is_decided = end.zip(layout::number(&path)).is_some_and(|(end, seq)| seq <= *end);
            if !is_decided || needed.contains(path.as_str()) {
                lying.insert(path);
                continue;
            }
            self.store.delete(&path)?;
            match named.contains(path.as_str()) {
                true => report.hot_files += 1,
                false => report.orphans += 1,
            }
        }
        Ok(lying)
    }

    /// Deletes settled files whose rows have been public for a while, and such as were written anew by somebody who had slept.
    /// Returns those that still lie there.
    fn delete_settled_files(
        &self,
        view: &View,
        gone: &DaysGone,
        now: Timestamp,
        report: &mut JanitorReport,
    ) -> Result<BTreeSet<String>, LakeError> {
        let over =
            view.compacted.keys().filter(|path| self.is_old(path, now)).filter_map(|path| view.compactions.get(path));
        let over: HashSet<&str> = over.flat_map(Compaction::inputs).map(|input| input.path.as_str()).collect();
        let mut lying = BTreeSet::new();
        for (path, _) in self.store.list(layout::SETTLED)? {
            let place = layout::place_of_settled(&path);
            let is_gone = place.as_ref().is_some_and(|((table, window_start, _), _)| {
                gone.get(table).is_some_and(|first_kept| window_start.date() < *first_kept)
            });
            let is_over = over.contains(path.as_str());
            let is_taken = || place.as_ref().is_some_and(|(key, generation)| view.is_taken(key, *generation));
            if !is_over && !is_gone && !is_taken() {
                lying.insert(path);
                continue;
            }
            self.store.delete(&path)?;
            match is_over || is_gone {
                true => report.settled_files += 1,
                false => report.orphans += 1,
            }
        }
        Ok(lying)
    }

    /// Cuts chains off below the first entry that has files; the newest entry always stays.
    fn trim(
        &self,
        view: &View,
        gone: &DaysGone,
        lying: &BTreeSet<String>,
        report: &mut JanitorReport,
    ) -> Result<(), LakeError> {
        let covered = view.covered(|_| true);
        let is_over = |entry: &&Entry| {
            let input = Input { topic: entry.topic.clone(), partition: entry.partition, seq: entry.seq };
            let is_done = |file: &HotFile| !lying.contains(&file.path) && is_settled(&covered, gone, &input, file);
            entry.files.iter().all(is_done)
        };
        let mut chains: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
        for (path, entry) in &view.entries {
            chains.entry(layout::chain_of(path)).or_default().push(entry);
        }
        for (chain, entries) in chains {
            let before_newest = entries[..entries.len() - 1].iter().copied();
            if let Some(Entry { topic, partition, seq, to, .. }) = before_newest.take_while(is_over).last() {
                let floor = Floor { version: VERSION, topic: topic.clone(), partition: *partition, seq: *seq, to: *to };
                let path = layout::floor(chain, *seq);
                self.store.create(&path, &claim::bytes(&path, &floor)?)?;
            }
            report.entries += self.delete_below_floor(chain)?;
        }
        Ok(())
    }

    fn delete_below_floor(&self, chain: &str) -> Result<u64, LakeError> {
        let listed = self.store.list(chain)?;
        let numbers = listed.iter().filter_map(|(path, _)| Some((path, layout::is_floor(path), layout::number(path)?)));
        let floor = floor_among(&listed);
        let mut deleted = 0;
        for (path, is_floor, number) in numbers {
            if number < floor || number == floor && !is_floor {
                self.store.delete(path)?;
                deleted += u64::from(!is_floor);
            }
        }
        Ok(deleted)
    }

    /// Deletes receipts of claims that are gone, written by somebody who had slept.
    fn delete_lone_receipts(&self, view: &View) -> Result<(), LakeError> {
        let claims = self.store.list(layout::SETTLE)?;
        for (path, _) in claims.into_iter().chain(self.store.list(layout::COMPACT)?) {
            let claim = layout::claim_of(&path);
            if claim != path
                && !view.claims.contains_key(&claim)
                && !view.compactions.contains_key(&claim)
                && matches!(self.store.get(&claim), Err(StoreError::NotFound(_)))
            {
                self.store.delete(&path)?;
            }
        }
        Ok(())
    }

    /// Compactions of which all inputs are gone, and all entries that these came from, become lines of their day's manifest.
    fn fold(&self, view: &View, lying: &BTreeSet<String>, report: &mut JanitorReport) -> Result<(), LakeError> {
        for (path, _) in view.claims.iter().filter(|(path, claim)| view.is_void(path, claim)) {
            self.delete_claim(path)?;
        }
        let mut days: BTreeMap<(String, String), Vec<(&String, &Compaction, &CompactionReceipt)>> = BTreeMap::new();
        for (path, made) in &view.compactions {
            if view.is_vain(path, made) {
                self.delete_claim(path)?;
                continue;
            }
            let Some(receipt) = view.compacted.get(path) else { continue };
            let is_gone = |input: &SettledFile| {
                let claim = layout::claim(&input.table, input.window_start, input.window, input.generation);
                !lying.contains(&input.path)
                    && view.claims.get(&claim).map_or_else(
                        || view.is_taken(&input.key(), input.generation),
                        |claim| claim.inputs.iter().all(|input| view.is_trimmed(input)),
                    )
            };
            if made.inputs().all(is_gone) {
                days.entry((made.table.clone(), made.window_start.date())).or_default().push((path, made, receipt));
            }
        }
        for ((table, day), compactions) in days {
            if view.first_kept.get(&table).is_some_and(|first_kept| day < *first_kept) {
                continue;
            }
            let folder = layout::manifest_folder(&table, &day);
            let before = view.manifests.iter().rfind(|(path, _)| path.starts_with(&folder));
            let number = before.and_then(|(path, _)| layout::number(path)).unwrap_or(0) + 1;
            let known = before.into_iter().flat_map(|(_, manifest)| &manifest.files);
            let new = compactions.iter().flat_map(|(_, _, receipt)| &receipt.files);
            let files: BTreeMap<&str, &SettledFile> = known.chain(new).map(|file| (file.path.as_str(), file)).collect();
            let mut taken = before.map_or_else(BTreeSet::new, |(_, manifest)| manifest.taken.clone());
            taken.extend(compactions.iter().flat_map(|(_, made, _)| made.inputs()).map(|input| Taken {
                window_start: input.window_start,
                window: input.window,
                generation: input.generation,
            }));
            let manifest = Manifest { version: VERSION, files: files.into_values().cloned().collect(), taken };
            let path = layout::manifest(&table, &day, number);
            let is_ours = self.store.create(&path, &claim::bytes(&path, &manifest)?)? == Created::Now;
            let listed = self.store.list(&folder)?;
            if !is_ours || listed.iter().any(|(other, _)| *other > path) {
                // Somebody else is at it, and knows more.
                continue;
            }
            for (path, made, _) in compactions {
                // Whoever misses a compaction misses its claims as well: those go first.
                for input in made.inputs() {
                    self.delete_claim(&layout::claim(
                        &input.table,
                        input.window_start,
                        input.window,
                        input.generation,
                    ))?;
                    report.claims += 1;
                }
                self.delete_claim(path)?;
            }
            for (other, _) in listed.iter().filter(|(other, _)| *other < path) {
                self.store.delete(other)?;
            }
        }
        Ok(())
    }
}

fn is_settled(covered: &HashMap<WindowKey, BTreeSet<&Input>>, gone: &DaysGone, input: &Input, file: &HotFile) -> bool {
    gone.get(&file.table).is_some_and(|first_kept| file.window_start.date() < *first_kept)
        || covered.get(&file.key()).is_some_and(|inputs| inputs.contains(input))
}
