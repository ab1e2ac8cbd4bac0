//! Lines that belong together: a traceback and the message that it explains are one entry.

use regex::Regex;
use tidewatch_model::{Span, Timestamp};

use super::container::Stream;
use super::lanes::Spot;
use super::level::Level;
use super::lines::{LINE_BYTES, Line};

/// Lines of one entry; what follows begins another.
const ENTRY_LINES: usize = 500;
/// Bytes of one entry.
const ENTRY_BYTES: usize = LINE_BYTES;
/// How long an entry waits for a further line.
const ENTRY_WAIT: Span = Span::seconds(1);

/// Which lines belong to the one before.
#[derive(Debug, Clone, Default)]
pub enum Join {
    /// Those of Python's tracebacks, also behind torchrun's `[rank0]: `.
    #[default]
    Traceback,
    /// None.
    Never,
    /// All but those that match.
    Start(Regex),
    /// Those that match.
    Continue(Regex),
}

/// One message, of one line or several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it begins in the file.
    pub start: u64,
    /// From where on the file is read to have it again; before `start` only within an envelope.
    pub from: u64,
    /// When its first line was written, as an envelope says.
    pub ts: Option<Timestamp>,
    /// What a container wrote it to.
    pub stream: Stream,
    /// Its lines.
    pub text: String,
    /// A terminal would have written the next line over it.
    pub transient: bool,
    lines: usize,
}

/// The entry under way of one file.
#[derive(Debug, Default)]
pub struct Joiner {
    stream: Stream,
    pending: Option<Entry>,
    /// When its last line came.
    at: Timestamp,
    /// Within a traceback, with what stands before each of its lines.
    traceback: Option<Traceback>,
}

#[derive(Debug)]
struct Traceback {
    prefix: String,
    /// The exception's own line has come: only another traceback may follow.
    told: bool,
}

impl Joiner {
    /// Of what a container writes to one stream.
    pub fn of(stream: Stream) -> Joiner {
        Joiner { stream, ..Joiner::default() }
    }

    /// Takes the next line, and gives what is complete.
    pub fn push(&mut self, join: &Join, line: Line, now: Timestamp, entries: &mut Vec<Entry>) {
        let fits = self.pending.as_ref().is_some_and(|entry| {
            !entry.transient
                && !line.transient
                && entry.lines < ENTRY_LINES
                && entry.text.len() + line.text.len() < ENTRY_BYTES
        });
        let joins = match join {
            Join::Never => false,
            Join::Start(start) => !start.is_match(&line.text),
            Join::Continue(goes_on) => goes_on.is_match(&line.text),
            Join::Traceback => self.of_traceback(&line.text),
        };
        self.at = now;
        if let Some(entry) = self.pending.as_mut().filter(|_| fits && joins) {
            entry.text.push('\n');
            entry.text.push_str(&line.text);
            entry.lines += 1;
            return;
        }
        entries.extend(self.pending.take());
        let Line { start, from, ts, text, transient, .. } = line;
        let entry = Entry { start, from, ts, stream: self.stream, text, transient, lines: 1 };
        // What no line can follow need not wait for it. A progress bar waits for what overwrites it: it tells the step of that.
        match join {
            Join::Never if !transient => entries.push(entry),
            _ => self.pending = Some(entry),
        }
    }

    /// Where the entry under way begins.
    pub fn pending(&self) -> Option<Spot> {
        self.pending.as_ref().map(|entry| Spot { from: entry.from, start: entry.start })
    }

    /// The entry under way, when nothing has followed for a while.
    pub fn overdue(&mut self, now: Timestamp) -> Option<Entry> {
        if now - self.at < ENTRY_WAIT { None } else { self.flush() }
    }

    /// The entry under way.
    pub fn flush(&mut self) -> Option<Entry> {
        self.traceback = None;
        self.pending.take()
    }

    fn of_traceback(&mut self, text: &str) -> bool {
        const HEAD: &str = "Traceback (most recent call last)";
        if let Some(Traceback { prefix, told }) = &mut self.traceback {
            let rest = text.strip_prefix(prefix.as_str()).or_else(|| text.strip_prefix(prefix.trim_end()));
            if let Some(rest) = rest {
                let is_chain = rest.starts_with("During handling of the above exception")
                    || rest.starts_with("The above exception was the direct cause");
                let is_head = rest.trim_start().starts_with(HEAD);
                let is_inner = rest.starts_with([' ', '\t']);
                if is_head || is_chain || rest.trim().is_empty() || (is_inner && !*told) {
                    *told = *told && !is_head && !is_chain;
                    return true;
                }
                if !std::mem::replace(told, true) {
                    return true;
                }
            }
            self.traceback = None;
        }
        let Some(at) = text.find(HEAD).filter(|at| is_prefix(&text[..*at])) else { return false };
        self.traceback = Some(Traceback { prefix: text[..at].to_string(), told: false });
        // A message that was logged with its exception; any other line has nothing to do with it.
        self.pending.as_ref().is_some_and(|entry| Level::of_line(&entry.text) >= Some(Level::Error))
    }
}

/// Blanks, or a word in brackets as torchrun's `[rank0]: `.
fn is_prefix(text: &str) -> bool {
    let text = text.trim();
    text.is_empty() || (text.starts_with('[') && text.trim_end_matches(':').ends_with(']') && text.len() < 40)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::logs::lines::{Lines, Raw};

    const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

    fn joined(join: &Join, text: &str) -> Vec<String> {
        let (mut lines, mut entries, mut joiner) = (Vec::new(), Vec::new(), Joiner::default());
        Lines::default().feed(text.as_bytes(), NOW, &mut lines);
        lines.into_iter().map(Raw::line).for_each(|line| joiner.push(join, line, NOW, &mut entries));
        entries.extend(joiner.flush());
        let mut next = 0;
        for entry in &entries {
            assert_eq!(entry.start, next, "each begins where the one before ends");
            next += entry.text.len() as u64 + 1;
        }
        assert_eq!(next, text.len() as u64);
        entries.into_iter().map(|entry| entry.text).collect()
    }

    #[test]
    fn a_traceback_is_one_entry_with_the_message_that_it_explains() {
        let text = "12:00 INFO step 1\n12:01 ERROR could not save\nTraceback (most recent call last):\n  File \"a.py\", line 1, in f\n    g()\n    ^^^\nOSError: no space\n\nDuring handling of the above exception, another exception occurred:\n\nTraceback (most recent call last):\n  File \"b.py\", line 2\nRuntimeError: gave up\n12:02 INFO step 2\n iteration 3/ 9 |\n";
        let entries = joined(&Join::Traceback, text);
        assert_eq!(entries.len(), 4, "{entries:#?}");
        assert!(entries[1].starts_with("12:01 ERROR") && entries[1].ends_with("RuntimeError: gave up"));
        let text = "12:00 INFO fine\n[rank3]: Traceback (most recent call last):\n[rank3]:   File \"a.py\"\n[rank3]: ValueError: x\n[rank0]: other\n";
        let entries = joined(&Join::Traceback, text);
        assert_eq!(entries.len(), 3, "an uncaught one has nothing to do with the line before: {entries:#?}");
        assert_eq!(entries[1].lines().count(), 3);
    }

    #[test]
    fn rules_of_ones_own() {
        let start = Join::Start(Regex::new(r"^\d\d:").unwrap());
        assert_eq!(joined(&start, "12:00 a\n b\nc\n12:01 d\n"), ["12:00 a\n b\nc", "12:01 d"]);
        let goes_on = Join::Continue(Regex::new(r"^\s+at |^Caused by").unwrap());
        assert_eq!(joined(&goes_on, "E: x\n  at f\nCaused by y\nz\n"), ["E: x\n  at f\nCaused by y", "z"]);
        assert_eq!(joined(&Join::Never, "Traceback (most recent call last):\n  x\n").len(), 2);
    }

    #[test]
    fn an_entry_has_bounds() {
        let text = format!("12:00 a\n{}", " b\n".repeat(ENTRY_LINES + 10));
        let entries = joined(&Join::Start(Regex::new(r"^\d").unwrap()), &text);
        assert_eq!(entries.iter().map(|entry| entry.lines().count()).collect::<Vec<_>>(), [ENTRY_LINES, 11]);
        let text = format!("12:00 a\n{}\n{}\n", "b".repeat(ENTRY_BYTES - 100), "c".repeat(1_000));
        assert_eq!(joined(&Join::Start(Regex::new(r"^\d").unwrap()), &text).len(), 2);
    }

    #[test]
    fn what_waits_is_given_after_a_while() {
        let (mut joiner, mut entries) = (Joiner::default(), Vec::new());
        let line = Raw { start: 7, bytes: b"x".to_vec(), transient: false }.line();
        joiner.push(&Join::Traceback, line, NOW, &mut entries);
        assert_eq!((entries.len(), joiner.pending()), (0, Some(Spot::at(7))));
        assert_eq!(joiner.overdue(NOW + Span::millis(999)), None);
        assert_eq!(joiner.overdue(NOW + ENTRY_WAIT).unwrap().text, "x");
    }
}
