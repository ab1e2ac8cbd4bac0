//! What the lake holds, read once: chains, claims, compactions, and which files count.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use tidewatch_model::Timestamp;
use tidewatch_model::ports::{Store, StoreError};

use crate::chain::{self, Entry, HotFile, floors_among, read_entry};
use crate::claim::{
    self, Claim, Compaction, CompactionReceipt, Input, Manifest, Receipt, SettledFile, Taken, WindowKey,
};
use crate::error::LakeError;
use crate::layout;

/// The lake at a moment.
#[derive(Debug, Default)]
pub struct View {
    /// Entries by path, hence by partition and number; only those above the floors.
    pub entries: BTreeMap<String, Entry>,
    /// Claims by path.
    pub claims: BTreeMap<String, Claim>,
    /// Receipts, by the path of their claim.
    pub receipts: BTreeMap<String, Receipt>,
    /// Compactions by path.
    pub compactions: BTreeMap<String, Compaction>,
    /// Receipts of compactions, by the path of their compaction.
    pub compacted: BTreeMap<String, CompactionReceipt>,
    /// Manifests by path: the newest of each table and day.
    pub manifests: BTreeMap<String, Manifest>,
    /// The first day of a table that is kept.
    pub first_kept: BTreeMap<String, String>,
    /// Floors of the chains, by their folders.
    pub floors: HashMap<String, u64>,
    /// The last entry read of each chain, by its folder: entries come in order, and those before it are not read again.
    read_to: HashMap<String, String>,
    /// Newest row of each table in each chain.
    newest: HashMap<String, BTreeMap<String, Timestamp>>,
}

impl View {
    /// Reads what is new since the last time; entries, claims, compactions and receipts never change. What depends on another is
    /// listed before it, so that a view taken beside a writer, a settler and a janitor is consistent: the claims of every
    /// compaction, the entries of every claim, and for each of these that is gone its place in a manifest, or below a floor.
    ///
    /// # Errors
    /// The store's, or a damaged file.
    pub fn refresh(&mut self, store: &dyn Store) -> Result<(), LakeError> {
        // Where a chain was cut off meanwhile, what was read before and what after do not fit: once more, then.
        for _ in 0..chain::MOST_LOOKS {
            let floors = floors_among(&store.list(layout::LOG)?);
            self.refresh_once(store)?;
            if self.floors == floors {
                return Ok(());
            }
        }
        let problem = "chains are cut off faster than they can be read".to_string();
        Err(LakeError::Damaged { path: layout::LOG.to_string(), problem })
    }

    fn refresh_once(&mut self, store: &dyn Store) -> Result<(), LakeError> {
        self.refresh_compactions(store)?;
        self.refresh_claims(store)?;
        self.refresh_manifests(store)?;
        for (path, _) in store.list(layout::RETENTION)? {
            if let Some((table, day)) = layout::table_and_day(layout::RETENTION, &path) {
                let first = self.first_kept.entry(table.to_string()).or_default();
                if day > first.as_str() {
                    *first = day.to_string();
                }
            }
        }
        self.refresh_chains(store)?;
        self.look_again(store)
    }

    /// A claim without a receipt of which inputs are gone was made in vain, or was carried out while this view was taken; so with
    /// compactions.
    fn look_again(&mut self, store: &dyn Store) -> Result<(), LakeError> {
        let doubtful = self.compactions.iter().filter(|(path, compaction)| self.is_vain(path, compaction));
        for path in doubtful.map(|(path, _)| path.clone()).collect::<Vec<_>>() {
            if let Some(receipt) = gone(claim::read(store, &layout::receipt(&path)))? {
                self.take_compaction_receipt(&path, receipt);
            } else if gone(store.get(&path).map_err(LakeError::from))?.is_none() {
                self.compactions.remove(&path);
            }
        }
        let doubtful = self.claims.iter().filter(|(path, claim)| self.is_void(path, claim));
        for path in doubtful.map(|(path, _)| path.clone()).collect::<Vec<_>>() {
            if let Some(receipt) = gone(claim::read(store, &layout::receipt(&path)))? {
                self.take_receipt(&path, receipt);
            } else if gone(store.get(&path).map_err(LakeError::from))?.is_none() {
                self.claims.remove(&path);
            }
        }
        Ok(())
    }

    fn refresh_compactions(&mut self, store: &dyn Store) -> Result<(), LakeError> {
        let listed: HashSet<String> = store.list(layout::COMPACT)?.into_iter().map(|(path, _)| path).collect();
        self.compactions.retain(|path, _| listed.contains(path));
        self.compacted.retain(|path, _| listed.contains(path));
        for path in listed.iter().filter(|path| layout::is_claim(path)) {
            if !self.compactions.contains_key(path) {
                match gone(claim::read(store, path))? {
                    Some(compaction) => self.compactions.insert(path.clone(), compaction),
                    None => continue,
                };
            }
            let receipt = layout::receipt(path);
            if !self.compacted.contains_key(path)
                && listed.contains(&receipt)
                && let Some(receipt) = gone(claim::read(store, &receipt))?
            {
                self.take_compaction_receipt(path, receipt);
            }
        }
        Ok(())
    }

    fn take_compaction_receipt(&mut self, path: &str, receipt: CompactionReceipt) {
        let outputs = |compaction: &Compaction| {
            compaction.outputs.iter().map(|output| &output.path).eq(receipt.files.iter().map(|file| &file.path))
        };
        if self.compactions.get(path).is_some_and(outputs) {
            self.compacted.insert(path.to_string(), receipt);
        }
    }

    fn refresh_claims(&mut self, store: &dyn Store) -> Result<(), LakeError> {
        let listed: HashSet<String> = store.list(layout::SETTLE)?.into_iter().map(|(path, _)| path).collect();
        // What a janitor deleted is in a manifest that is read below.
        self.claims.retain(|path, _| listed.contains(path));
        self.receipts.retain(|path, _| listed.contains(path));
        for path in listed.iter().filter(|path| layout::is_claim(path)) {
            if !self.claims.contains_key(path) {
                match gone(claim::read(store, path))? {
                    Some(claim) => self.claims.insert(path.clone(), claim),
                    None => continue,
                };
            }
            let receipt = layout::receipt(path);
            if !self.receipts.contains_key(path)
                && listed.contains(&receipt)
                && let Some(receipt) = gone(claim::read(store, &receipt))?
            {
                self.take_receipt(path, receipt);
            }
        }
        Ok(())
    }

    /// A receipt of a claim that is gone may lie where another claim is made: it says nothing of that one.
    fn take_receipt(&mut self, path: &str, receipt: Receipt) {
        if self.claims.get(path).is_some_and(|claim| claim.output == receipt.file.path) {
            self.receipts.insert(path.to_string(), receipt);
        }
    }

    fn refresh_manifests(&mut self, store: &dyn Store) -> Result<(), LakeError> {
        // One that is replaced while it is looked for is found at the next look.
        for _ in 0..chain::MOST_LOOKS {
            let mut newest: BTreeMap<String, String> = BTreeMap::new();
            for (path, _) in store.list(layout::MANIFEST)? {
                let folder = path.rfind('/').map_or("", |end| &path[..=end]).to_string();
                newest.insert(folder, path);
            }
            let wanted: BTreeSet<String> = newest.into_values().collect();
            self.manifests.retain(|path, _| wanted.contains(path));
            let mut is_whole = true;
            for path in wanted {
                if self.manifests.contains_key(&path) {
                    continue;
                }
                match gone(claim::read(store, &path))? {
                    Some(manifest) => drop(self.manifests.insert(path, manifest)),
                    None => is_whole = false,
                }
            }
            if is_whole {
                return Ok(());
            }
        }
        Err(LakeError::Damaged {
            path: layout::MANIFEST.to_string(),
            problem: "manifests are replaced faster than they can be read".to_string(),
        })
    }

    fn refresh_chains(&mut self, store: &dyn Store) -> Result<(), LakeError> {
        let mut listed = store.list(layout::LOG)?;
        let mut looks = 1;
        while let Some(gap) = self.gap_in(&listed) {
            // A list that is made while entries are is not of one moment.
            if looks == chain::MOST_LOOKS {
                return Err(gap);
            }
            (listed, looks) = (store.list(layout::LOG)?, looks + 1);
        }
        self.floors.extend(floors_among(&listed));
        for (path, _) in listed.iter().filter(|(path, _)| !layout::is_floor(path)) {
            let chain = layout::chain_of(path);
            let is_known = self.read_to.get(chain).is_some_and(|last| path <= last);
            if is_known || self.is_below_floor(path) {
                continue;
            }
            let Some(entry) = gone(read_entry(store, path))? else {
                let floor = chain::floor(store, chain)?;
                if layout::number(path).is_some_and(|seq| seq <= floor) {
                    self.floors.insert(chain.to_string(), floor);
                    continue;
                }
                return Err(StoreError::NotFound(path.clone()).into());
            };
            for file in &entry.files {
                let of_table = self.newest.entry(file.table.clone()).or_default();
                let newest = of_table.entry(chain.to_string()).or_insert(file.max_ts);
                *newest = (*newest).max(file.max_ts);
            }
            self.read_to.insert(chain.to_string(), path.clone());
            self.entries.insert(path.clone(), entry);
        }
        let floors = &self.floors;
        self.entries.retain(|path, entry| floors.get(layout::chain_of(path)).is_none_or(|floor| entry.seq > *floor));
        Ok(())
    }

    /// An entry without the one before it, among those that are new.
    fn gap_in(&self, listed: &[(String, u64)]) -> Option<LakeError> {
        let floors = floors_among(listed);
        let mut before: HashMap<&str, u64> = HashMap::new();
        for (path, _) in listed.iter().filter(|(path, _)| !layout::is_floor(path)) {
            let (chain, Some(seq)) = (layout::chain_of(path), layout::number(path)) else { continue };
            let floor = floors.get(chain).copied().unwrap_or(0);
            if seq <= floor {
                continue;
            }
            let before = before.insert(chain, seq).unwrap_or(floor);
            if seq != before + 1 {
                let problem = format!("entry {} is missing before it", before + 1);
                return Some(LakeError::Damaged { path: path.clone(), problem });
            }
        }
        None
    }

    fn is_below_floor(&self, path: &str) -> bool {
        let floor = self.floors.get(layout::chain_of(path));
        floor.zip(layout::number(path)).is_some_and(|(floor, seq)| seq <= *floor)
    }

    /// Whether an entry is no part of its chain any more.
    pub fn is_trimmed(&self, input: &Input) -> bool {
        let chain = layout::chain_folder(&input.topic, input.partition);
        self.floors.get(&chain).is_some_and(|floor| input.seq <= *floor)
    }

    /// Whether a claim counts for nothing: its inputs were settled, and gone, before it was made, or it has taken the place of one
    /// that is in a manifest. Only a process that slept through all of that makes one. [`View::refresh`] has made sure that the
    /// receipt was not just missed.
    pub fn is_void(&self, path: &str, claim: &Claim) -> bool {
        !self.receipts.contains_key(path)
            && (claim.inputs.iter().any(|input| self.is_trimmed(input))
                || self.is_taken(&claim.key(), claim.generation))
    }

    /// Whether a compaction counts for nothing: made in the place of one that is in a manifest, or of settled files that are.
    pub fn is_vain(&self, path: &str, compaction: &Compaction) -> bool {
        let in_manifest = || {
            let files = self.manifest_of(&compaction.key()).into_iter().flat_map(|manifest| &manifest.files);
            files.into_iter().any(|file| file.key() == compaction.key() && file.generation == compaction.generation)
        };
        !self.compacted.contains_key(path)
            && (in_manifest() || compaction.inputs().any(|input| self.is_taken(&input.key(), input.generation)))
    }

    /// Whether a manifest says that a public file has taken in a settled file, and that it is gone.
    pub fn is_taken(&self, key: &WindowKey, generation: u32) -> bool {
        let taken = Taken { window_start: key.1, window: key.2, generation };
        self.manifest_of(key).is_some_and(|manifest| manifest.taken.contains(&taken))
    }

    /// The manifest of a window's day.
    fn manifest_of(&self, (table, window_start, _): &WindowKey) -> Option<&Manifest> {
        let folder = layout::manifest_folder(table, &window_start.date());
        let mut found = self.manifests.range(folder.clone()..).take_while(|(path, _)| path.starts_with(&folder));
        found.next().map(|(_, manifest)| manifest)
    }

    /// Whether a window is of a day that is not kept.
    pub fn is_expired(&self, table: &str, window_start: Timestamp) -> bool {
        self.first_kept.get(table).is_some_and(|first| window_start.date() < *first)
    }

    /// The oldest of the chains' newest rows of a table: all of them have come that far.
    pub fn reached(&self, table: &str) -> Option<Timestamp> {
        self.newest.get(table)?.values().min().copied()
    }

    /// Claims that nothing was made of yet.
    pub fn unsettled(&self) -> impl Iterator<Item = (&String, &Claim)> {
        self.claims.iter().filter(|(path, claim)| {
            !self.receipts.contains_key(*path)
                && !self.is_void(path, claim)
                && !self.is_expired(&claim.table, claim.window_start)
        })
    }

    /// Compactions that nothing was made of yet.
    pub fn uncompacted(&self) -> impl Iterator<Item = (&String, &Compaction)> {
        self.compactions.iter().filter(|(path, compaction)| {
            !self.compacted.contains_key(*path)
                && !self.is_vain(path, compaction)
                && !self.is_expired(&compaction.table, compaction.window_start)
        })
    }

    /// Lets go of what settled claims have taken in: a settler that runs for months remembers what is open.
    pub fn forget_settled(&mut self) {
        for (_, claim) in self.claims.iter_mut().filter(|(path, _)| self.receipts.contains_key(*path)) {
            for input in std::mem::take(&mut claim.inputs) {
                let path = layout::chain_entry(&input.topic, input.partition, input.seq);
                if let Some(entry) = self.entries.get_mut(&path) {
                    entry.files.retain(|file| file.key() != claim.key());
                }
            }
        }
        self.entries.retain(|_, entry| {
            entry.last_seq.clear();
            !entry.files.is_empty()
        });
    }

    /// Inputs of each window that some claim already has.
    pub fn claimed(&self) -> HashMap<WindowKey, BTreeSet<&Input>> {
        self.inputs_of(|path, claim| !self.is_void(path, claim))
    }

    /// Inputs of each window that are in a settled file, of claims of which the path is like this.
    pub fn covered(&self, counts: impl Fn(&str) -> bool) -> HashMap<WindowKey, BTreeSet<&Input>> {
        self.inputs_of(|path, _| self.receipts.contains_key(path) && counts(path))
    }

    /// The newest entry of each chain, by its folder.
    pub fn ends(&self) -> HashMap<String, u64> {
        let mut ends = HashMap::new();
        for (path, entry) in &self.entries {
            // In order of their numbers.
            ends.insert(layout::chain_of(path).to_string(), entry.seq);
        }
        ends
    }

    fn inputs_of(&self, counts: impl Fn(&str, &Claim) -> bool) -> HashMap<WindowKey, BTreeSet<&Input>> {
        let mut inputs: HashMap<WindowKey, BTreeSet<&Input>> = HashMap::new();
        for (_, claim) in self.claims.iter().filter(|(path, claim)| counts(path, claim)) {
            inputs.entry(claim.key()).or_default().extend(&claim.inputs);
        }
        inputs
    }

    /// The largest generation of a window's settled files so far, or 0.
    pub fn generation(&self, key: &WindowKey) -> u32 {
        let folder = layout::claim_folder(&key.0, key.1, key.2);
        let claims = self.claims.range(folder.clone()..).take_while(|(path, _)| path.starts_with(&folder));
        let of = |generation| Taken { window_start: key.1, window: key.2, generation };
        let taken = self.manifest_of(key).and_then(|manifest| manifest.taken.range(of(0)..=of(u32::MAX)).last());
        claims.map(|(_, claim)| claim.generation).chain(taken.map(|taken| taken.generation)).max().unwrap_or(0)
    }

    /// The largest generation of a window's public files so far, or 0.
    pub fn public_generation(&self, key: &WindowKey) -> u32 {
        let folder = layout::compaction_folder(&key.0, key.1, key.2);
        let made = self.compactions.range(folder.clone()..).take_while(|(path, _)| path.starts_with(&folder));
        let files = self.manifest_of(key).into_iter().flat_map(|manifest| &manifest.files);
        let known = files.filter(|file| file.key() == *key).map(|file| file.generation);
        made.map(|(_, compaction)| compaction.generation).chain(known).max().unwrap_or(0)
    }

    /// Whether files of a window became public after it was over: what comes then is late.
    pub fn was_public_whole(&self, key: &WindowKey) -> bool {
        let folder = layout::compaction_folder(&key.0, key.1, key.2);
        let made = self.compacted.range(folder.clone()..).take_while(|(path, _)| path.starts_with(&folder));
        let is_late = |receipt: &CompactionReceipt| receipt.compacted_at >= key.1 + key.2;
        made.into_iter().any(|(_, receipt)| is_late(receipt))
            || self.manifest_of(key).is_some_and(|manifest| manifest.files.iter().any(|file| file.key() == *key))
    }

    /// Committed hot files with their inputs, in order of the chains.
    pub fn hot_files(&self) -> impl Iterator<Item = (Input, &HotFile)> {
        self.entries.values().flat_map(|entry| {
            let input = Input { topic: entry.topic.clone(), partition: entry.partition, seq: entry.seq };
            entry.files.iter().map(move |file| (input.clone(), file))
        })
    }

    /// Public files that count, each once, by path.
    pub fn public(&self) -> BTreeMap<&str, &SettledFile> {
        let receipts = self.compacted.values().flat_map(|receipt| &receipt.files);
        let files = receipts.chain(self.manifests.values().flat_map(|manifest| &manifest.files));
        let kept = files.filter(|file| !self.is_expired(&file.table, file.window_start));
        kept.map(|file| (file.path.as_str(), file)).collect()
    }

    /// Settled files, with their claims, of which no compaction like these has the path. Those are all: what a manifest calls taken
    /// counts for nothing.
    fn settled_without(&self, compaction: impl Fn(&str) -> bool) -> Vec<(&Claim, &Receipt)> {
        let compactions = self.compactions.iter().filter(|(path, _)| compaction(path));
        let taken: HashSet<&str> =
            compactions.flat_map(|(_, made)| made.inputs()).map(|input| input.path.as_str()).collect();
        let receipts = self.receipts.iter().filter_map(|(path, receipt)| Some((self.claims.get(path)?, receipt)));
        let left = receipts.filter(|(_, Receipt { file, .. })| {
            !taken.contains(file.path.as_str())
                && !self.is_taken(&file.key(), file.generation)
                && !self.is_expired(&file.table, file.window_start)
        });
        left.collect()
    }

    /// Settled files that no public file has taken in.
    pub fn settled(&self) -> Vec<&SettledFile> {
        self.settled_without(|path| self.compacted.contains_key(path))
            .into_iter()
            .map(|(_, receipt)| &receipt.file)
            .collect()
    }

    /// Settled files that no compaction has, with their claims.
    pub fn unclaimed_settled(&self) -> Vec<(&Claim, &Receipt)> {
        self.settled_without(|path| self.compactions.get(path).is_some_and(|made| !self.is_vain(path, made)))
    }

    /// Hot files that no settled file covers.
    pub fn uncovered(&self) -> Vec<&HotFile> {
        let covered = self.covered(|_| true);
        let is_covered = |input: &Input, file: &HotFile| {
            self.is_expired(&file.table, file.window_start)
                || covered.get(&file.key()).is_some_and(|inputs| inputs.contains(input))
        };
        self.hot_files().filter(|(input, file)| !is_covered(input, file)).map(|(_, file)| file).collect()
    }
}

/// What was read, or nothing when it is gone.
fn gone<T>(read: Result<T, LakeError>) -> Result<Option<T>, LakeError> {
    match read {
        Err(LakeError::Store(StoreError::NotFound(_))) => Ok(None),
        read => read.map(Some),
    }
}
