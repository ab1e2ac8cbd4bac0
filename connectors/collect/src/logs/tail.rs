//! Reading files that grow, are rotated, emptied and removed.
//!
//! A file is followed by device and inode, whatever its name. What the log may not have yet is read again after a crash: a place is written
//! down once the log has all before it.

mod follow;

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use tidewatch_model::{Span, Timestamp};

use super::container::Container;
use super::join::{Entry, Join};
use super::kept::{FileId, Kept, KeptFile, Mark, bytes_at};
use super::options::From;
pub use follow::Follow;

/// How often patterns are looked at again.
const LOOK: Span = Span::seconds(5);
/// Files of one source; those beyond are not read, and said.
const FILES: usize = 1_000;
/// Files that are kept open, but for those that can't be opened again.
const OPEN_FILES: usize = 100;
/// Files that were read to their end and are known again if they come back.
const FORMER_FILES: usize = 1_000;
/// One read.
const CHUNK_BYTES: usize = 64 << 10;
/// Reads of one file in one pass, so that each has its turn.
const CHUNKS: usize = 16;
/// Bytes of one pass; the rest is for the next.
const PASS_BYTES: usize = 8 << 20;
/// Entries of one pass.
const PASS_ENTRIES: usize = 20_000;
/// Endings of files that are packed: the lines in them were read before they were.
const PACKED: [&str; 7] = ["gz", "xz", "zst", "bz2", "lz4", "zip", "Z"];

/// Files by patterns.
pub struct Tailer {
    patterns: Vec<String>,
    from: From,
    join: Join,
    container: Option<Container>,
    files: Vec<Follow>,
    /// Files that were read before, in an earlier start or until they were gone.
    former: Vec<KeptFile>,
    /// Nothing was remembered: what is there now was there before us.
    is_first: bool,
    looked: Option<Timestamp>,
    /// The file that has the first turn.
    turn: usize,
    problems: Vec<String>,
    odd: OddLines,
}

/// Lines that are not as they were written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OddLines {
    /// Cut.
    pub cut: usize,
    /// Not UTF-8.
    pub replaced: usize,
    /// Without the envelope that a container's lines have.
    pub bare: usize,
}

/// An entry, the file that it is of, and when it was read first.
#[derive(Debug)]
pub struct Read {
    /// Which of the files.
    pub file: usize,
    /// The entry.
    pub entry: Entry,
    /// When.
    pub at: Timestamp,
}

impl Tailer {
    /// Of these patterns, going on where it was.
    pub fn new(
        patterns: Vec<String>,
        from: From,
        join: Join,
        container: Option<Container>,
        kept: Option<Kept>,
    ) -> Tailer {
        Tailer {
            patterns,
            from,
            join,
            container,
            files: Vec::new(),
            is_first: kept.is_none(),
            former: kept.unwrap_or_default().files,
            looked: None,
            turn: 0,
            problems: Vec::new(),
            odd: OddLines::default(),
        }
    }

    /// The files, as entries name them until the next pass.
    pub fn files(&mut self) -> &mut [Follow] {
        &mut self.files
    }

    /// What could not be read in this pass, and lines that are not as they were written.
    pub fn take_problems(&mut self) -> (Vec<String>, OddLines) {
        (std::mem::take(&mut self.problems), std::mem::take(&mut self.odd))
    }

    /// The log has everything that was given.
    pub fn confirm(&mut self) {
        for file in &mut self.files {
            file.done = file.given;
            file.ahead = file.ahead.filter(|ahead| ahead.until > file.done.until());
        }
        let (ended, files): (Vec<_>, Vec<_>) = self.files.drain(..).partition(|file| file.is_ended);
        self.files = files;
        self.former.extend(ended.iter().map(Follow::kept));
        let surplus = self.former.len().saturating_sub(FORMER_FILES);
        self.former.drain(..surplus);
    }

    /// What to remember.
    pub fn kept(&self) -> Kept {
        Kept { files: self.files.iter().map(Follow::kept).chain(self.former.iter().cloned()).collect(), cursor: None }
    }

    /// Reads on, within the bounds of a pass.
    pub fn pass(&mut self, now: Timestamp) -> Vec<Read> {
        if self.looked.is_none_or(|looked| now - looked >= LOOK || now < looked) {
            self.look(now);
            self.looked = Some(now);
        }
        let (mut read, mut bytes) = (Vec::new(), PASS_BYTES);
        let count = self.files.len();
        let first = self.turn;
        let mut next = first;
        for place in 0..count {
            let index = (first + place) % count;
            if bytes == 0 || read.len() >= PASS_ENTRIES {
                break;
            }
            next = index + 1;
            let mut entries = Vec::new();
            if let Err(problem) = self.read(index, now, &mut bytes, &mut entries) {
                self.problems.push(format!("{}: {problem}", self.files[index].path.display()));
            }
            self.take(index, now, entries, &mut read);
        }
        self.turn = if count == 0 { 0 } else { next % count };
        for file in &mut self.files {
            file.remember(now);
        }
        self.close_some();
        read
    }

    fn take(&self, index: usize, now: Timestamp, entries: Vec<Entry>, read: &mut Vec<Read>) {
        let ahead = self.files[index].ahead;
        read.extend(entries.into_iter().map(|entry| {
            // The same again after a crash: as it was read the first time, so that the rows are the same.
            let before = ahead.filter(|ahead| entry.start < ahead.until).map(|ahead| ahead.at);
            Read { file: index, entry, at: before.unwrap_or(now) }
        }));
    }

    /// Looks which files there are.
    fn look(&mut self, now: Timestamp) {
        let is_first_look = self.looked.is_none();
        let mut found: BTreeMap<FileId, Vec<PathBuf>> = BTreeMap::new();
        let mut failed = false;
        for pattern in &self.patterns {
            let paths = glob::glob(pattern).into_iter().flatten();
            for path in paths {
                let looked = path.map_err(|error| error.to_string()).and_then(|path| match std::fs::metadata(&path) {
                    Ok(metadata) => Ok(Some((path, metadata))),
                    // It was removed a moment ago, or is a link to nothing.
                    Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(format!("{}: {error}", path.display())),
                });
                match looked {
                    Ok(Some((path, metadata))) if metadata.is_file() && !is_packed(&path) => {
                        found.entry(FileId::of(&metadata)).or_default().push(path);
                    }
                    Ok(_) => {}
                    Err(problem) => {
                        failed = true;
                        self.problems.push(problem);
                    }
                }
            }
        }
        for file in &mut self.files {
            let paths = found.remove(&file.id);
            // A folder that can't be read says nothing about what is in it.
            file.is_gone = paths.is_none() && (!failed || file.is_gone);
            if let Some(paths) = paths.filter(|paths| !paths.contains(&file.path)) {
                file.path = paths[0].clone();
            }
        }
        // Those that are known already first: what is left may be copies of them.
        let is_known = |id: &FileId| self.former.iter().any(|kept| kept.id == *id);
        let mut found: Vec<_> = found.into_iter().collect();
        found.sort_by_key(|(id, _)| !is_known(id));
        let mut left_out = 0;
        for (id, paths) in found {
            if self.files.iter().any(|file| file.id == id) {
                continue;
            }
            if self.files.len() >= FILES {
                left_out += 1;
                continue;
            }
            self.adopt(id, &paths, is_first_look, now);
        }
        if left_out > 0 {
            self.problems.push(format!("{left_out} files beyond {FILES} are not read"));
        }
        if is_first_look {
            self.find_moved(now);
        }
    }

    /// Begins to follow a file.
    fn adopt(&mut self, id: FileId, paths: &[PathBuf], is_first_look: bool, now: Timestamp) {
        let path = &paths[0];
        let opened =
            File::open(path).and_then(|file| Ok((FileId::of(&file.metadata()?), file.metadata()?.len(), file)));
        let (size, file) = match opened {
            Ok((opened, size, file)) if opened == id => (size, file),
            // Another was put there meanwhile: the next look finds it.
            Ok(_) => return,
            Err(error) => return self.problems.push(format!("{}: {error}", path.display())),
        };
        // Devices may get other numbers at a boot.
        let is = |kept: &KeptFile| kept.id == id || (kept.id.inode == id.inode && paths.contains(&kept.path));
        if let Some(place) = self.former.iter().position(is) {
            let kept = self.former.remove(place);
            // Another file may have had its number before.
            self.former.retain(|other| other.id != id);
            if kept.is(&file) {
                return self.files.push(Follow::again(kept, id, path.clone(), file, self.container, now));
            }
            // It was emptied while nobody read; a copy may have the rest.
            if let Some((id, path, copy)) = self.copy_of(path, kept.offset, &kept.head, &kept.trail) {
                let mut follow = Follow::again(kept, id, path, copy, self.container, now);
                follow.is_gone = true;
                self.files.push(follow);
            }
            return self.files.push(Follow::new(id, path.clone(), file, (0, false), self.container, now));
        }
        // A copy of a file that will be emptied in a moment: what is in it was read where it was written.
        let is_copy = |other: &Follow| {
            is_rotated_name(path, &other.path)
                && other.lines.position() > 0
                && other.head.is_head_of(&file)
                && Mark::of_bytes(&other.trail).is_before(&file, other.lines.position())
        };
        if self.files.iter().any(is_copy) {
            return;
        }
        let at_end = is_first_look && self.is_first && self.from == From::End;
        let start = if at_end { size } else { 0 };
        // In the middle of a line, its beginning is not ours either.
        let skip = start > 0 && bytes_at(&file, start - 1, 1) != b"\n";
        self.files.push(Follow::new(id, path.clone(), file, (start, skip), self.container, now));
    }

    /// Files that were moved while nobody read: what was written to them meanwhile is theirs still.
    fn find_moved(&mut self, now: Timestamp) {
        let (moved, former): (Vec<_>, Vec<_>) = self.former.drain(..).partition(|kept| !kept.ended);
        self.former = former;
        for kept in moved {
            let path = kept.id.find_beside(&kept.path).filter(|path| !is_packed(path));
            let Some((file, path)) = path.and_then(|path| Some((File::open(&path).ok()?, path))) else {
                // Its folder may come back.
                self.former.push(KeptFile { ended: true, ..kept });
                continue;
            };
            let id = kept.id;
            let mut follow = match kept.is(&file) {
                true => Follow::again(kept, id, path, file, self.container, now),
                // It was emptied before it was moved. Or it is another file with the same number: then its name is another.
                false if is_rotated_name(&path, &kept.path) => {
                    Follow::new(id, path, file, (0, false), self.container, now)
                }
                false => continue,
            };
            follow.is_gone = true;
            self.files.push(follow);
        }
    }

    /// Reads a file on.
    fn read(
        &mut self,
        index: usize,
        now: Timestamp,
        bytes: &mut usize,
        entries: &mut Vec<Entry>,
    ) -> Result<(), String> {
        if self.files[index].is_ended || !self.files[index].open()? {
            self.files[index].end_when_quiet(&self.join, now, &mut self.odd, entries);
            return Ok(());
        }
        if self.files[index].was_emptied()? {
            self.emptied(index, now, entries);
        }
        let file = &mut self.files[index];
        for _ in 0..CHUNKS {
            let room = file.room();
            let size = CHUNK_BYTES.min(*bytes).min(room.unwrap_or(CHUNK_BYTES));
            let count = file.read_chunk(size, now, &self.join, &mut self.odd, entries)?;
            *bytes -= count;
            if count == 0 {
                file.end_when_quiet(&self.join, now, &mut self.odd, entries);
                break;
            }
            if *bytes == 0 || entries.len() >= PASS_ENTRIES || (room.is_some() && file.room().is_none()) {
                break;
            }
        }
        Ok(())
    }

    /// A file was emptied, or written anew. If what it had was copied before, as logrotate's copytruncate does, the copy is read on.
    fn emptied(&mut self, index: usize, now: Timestamp, entries: &mut Vec<Entry>) {
        let file = &self.files[index];
        let copy = self.copy_of(&file.path, file.lines.position(), &file.head, &Mark::of_bytes(&file.trail));
        let file = &mut self.files[index];
        let Some(opened) = file.file.take() else { return };
        let mut anew = Follow::new(file.id, file.path.clone(), opened, (0, false), self.container, now);
        anew.source.clone_from(&file.source);
        let mut before = std::mem::replace(file, anew);
        let Some((id, path, copy)) = copy else {
            // Half a line whose end is gone is no line: half a number would be another one.
            before.lanes.flush(&self.join, now, &mut self.odd, entries);
            return;
        };
        (before.id, before.path, before.file) = (id, path, Some(copy));
        (before.is_gone, before.seen, before.grew) = (true, None, now);
        match self.files.iter_mut().find(|file| file.id == id) {
            Some(fresh) => *fresh = before,
            None => self.files.push(before),
        }
    }

    /// A file beside one, named as it is and something more, that has all that was read of it and is not read itself.
    fn copy_of(&self, path: &Path, place: u64, head: &Mark, trail: &Mark) -> Option<(FileId, PathBuf, File)> {
        if head.is_empty() {
            return None;
        }
        let entries = std::fs::read_dir(path.parent()?).ok()?.flatten();
        let mut paths: Vec<PathBuf> = entries
            .map(|entry| entry.path())
            .filter(|found| is_rotated_name(found, path) && !is_packed(found))
            .collect();
        paths.sort();
        paths.into_iter().find_map(|path| {
            let metadata = std::fs::metadata(&path).ok().filter(Metadata::is_file)?;
            let id = FileId::of(&metadata);
            let is_new = self.files.iter().all(|file| file.id != id || file.lines.position() == 0);
            let copy = File::open(&path).ok().filter(|copy| {
                is_new && metadata.len() >= place && head.is_head_of(copy) && trail.is_before(copy, place)
            })?;
            Some((id, path, copy))
        })
    }

    /// Closes files that were quiet for longest.
    fn close_some(&mut self) {
        let mut quiet: Vec<&mut Follow> =
            self.files.iter_mut().filter(|file| file.file.is_some() && !file.is_gone).collect();
        let surplus = quiet.len().saturating_sub(OPEN_FILES);
        quiet.sort_by_key(|file| file.grew);
        quiet.into_iter().take(surplus).for_each(|file| file.file = None);
    }
}

/// Whether a file is named as another is, and something more: `train.log.1`, `train.log-20260131`.
fn is_rotated_name(path: &Path, of: &Path) -> bool {
    let of_folder = of.parent();
    let names = (path.file_name().and_then(|name| name.to_str()), of.file_name().and_then(|name| name.to_str()));
    let (Some(name), Some(of)) = names else { return false };
    path.parent() == of_folder && name.strip_prefix(of).is_some_and(|rest| rest.starts_with(['.', '-', '_']))
}

fn is_packed(path: &Path) -> bool {
    path.extension().and_then(|ending| ending.to_str()).is_some_and(|ending| PACKED.contains(&ending))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
