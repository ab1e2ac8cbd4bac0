//! systemd's journal, through journalctl: it goes on from a cursor, and knows rotated and damaged files better than we would.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value};
use tidewatch_model::{Span, Timestamp};

use super::extract::Known;
use super::level::Level;
use super::lines::LINE_BYTES;
use super::options::From;

/// Bytes of one entry as JSON; a longer one is left out, and counted.
const ENTRY_BYTES: usize = 1 << 20;
/// Entries that wait to be taken; beyond it the program waits.
const WAITING: usize = 1_000;
/// Entries of one pass.
const PASS_ENTRIES: usize = 20_000;
/// How long until a program that has ended is started again: twice as long each further time.
const REST: Span = Span::seconds(1);
/// The longest rest.
const REST_LONGEST: Span = Span::minutes(1);
/// Fields of an entry that are kept, and what they are called.
const FIELDS: [(&str, &str); 6] = [
    ("SYSLOG_IDENTIFIER", "identifier"),
    ("_PID", "pid"),
    ("_COMM", "process_name"),
    ("_TRANSPORT", "transport"),
    ("_SYSTEMD_USER_UNIT", "user_unit"),
    ("CODE_FUNC", "function"),
];

/// A journal and the program that reads it.
pub struct Journal {
    program: PathBuf,
    arguments: Vec<String>,
    units: Vec<String>,
    from: From,
    /// The log has all until there.
    done: Option<String>,
    /// Rows were made of all until there.
    given: Option<String>,
    running: Option<Running>,
    /// Whether it is told that entries of earlier boots count too: new ones need it, and old ones do not know it.
    all_boots: bool,
    rest: Span,
    again_at: Timestamp,
}

struct Running {
    child: Child,
    entries: Receiver<Option<String>>,
    /// The last line of what it complains about.
    complaint: Arc<Mutex<String>>,
    started: Timestamp,
    /// Only tells where the end is.
    is_looking: bool,
    has_spoken: bool,
}

/// One entry.
#[derive(Debug, Clone, PartialEq)]
pub struct JournalEntry {
    /// Its unit, or whatever names who said it.
    pub source: String,
    /// What.
    pub text: String,
    /// What the journal knows of it.
    pub known: Known,
    cursor: Option<String>,
}

/// Why there is nothing to be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalFault {
    /// In words.
    pub reason: String,
    /// This machine has no such program.
    pub absent: bool,
}

impl Journal {
    /// Going on where it was.
    pub fn new(
        program: PathBuf,
        arguments: Vec<String>,
        units: Vec<String>,
        from: From,
        cursor: Option<String>,
    ) -> Journal {
        Journal {
            program,
            arguments,
            units,
            from,
            done: cursor.clone(),
            given: cursor,
            running: None,
            all_boots: true,
            rest: REST,
            again_at: Timestamp::MIN,
        }
    }

    /// The log has everything that was given.
    pub fn confirm(&mut self) {
        self.done.clone_from(&self.given);
    }

    /// Where to go on.
    pub fn cursor(&self) -> Option<String> {
        self.done.clone()
    }

    /// What has come.
    pub fn pass(&mut self, now: Timestamp) -> (Vec<JournalEntry>, Vec<JournalFault>) {
        let mut faults = Vec::new();
        if self.running.is_none() && self.again_at <= now {
            match self.start(now) {
                Ok(running) => self.running = Some(running),
                Err(fault) => {
                    faults.push(fault);
                    self.rest_from(now);
                }
            }
        }
        let Some(running) = &mut self.running else { return (vec![], faults) };
        let (mut entries, mut left_out, mut ended) = (Vec::new(), 0, false);
        while entries.len() < PASS_ENTRIES {
            match running.entries.try_recv() {
                Ok(Some(line)) => match parsed(&line) {
                    Some(entry) => {
                        running.has_spoken = true;
                        if let Some(cursor) = &entry.cursor {
                            self.given = Some(cursor.clone());
                            // It reads: the next end is a new one.
                            self.rest = REST;
                        }
                        // The end of what is there was asked for to have its cursor.
                        let is_old = entry.known.ts.is_some_and(|ts| ts < running.started);
                        if !(std::mem::take(&mut running.is_looking) && is_old) {
                            entries.push(entry);
                        }
                    }
                    None => left_out += 1,
                },
                Ok(None) => left_out += 1,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    ended = true;
                    break;
                }
            }
        }
        let absent = false;
        if left_out > 0 {
            faults.push(JournalFault { reason: format!("{left_out} entries are over 1 MiB or no JSON"), absent });
        }
        if ended && let Some(mut running) = self.running.take() {
            let status = running.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
            let complaint = running.complaint.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let reason = format!("{} ended with {status}: {complaint}", self.program.display());
            faults.push(JournalFault { reason, absent });
            self.all_boots ^= !running.has_spoken;
            self.rest_from(now);
        }
        (entries, faults)
    }

    fn rest_from(&mut self, now: Timestamp) {
        self.again_at = now + self.rest;
        self.rest = Span::micros((self.rest.0 * 2).min(REST_LONGEST.0));
    }

    fn start(&self, now: Timestamp) -> Result<Running, JournalFault> {
        let mut command = Command::new(&self.program);
        command.args(["--output=json", "--follow", "--all", "--quiet"]);
        command.args(self.all_boots.then_some("--boot=all"));
        let is_looking = self.given.is_none() && self.from == From::End;
        match &self.given {
            Some(cursor) => command.args(["--no-tail", &format!("--after-cursor={cursor}")]),
            None if is_looking => command.arg("--lines=1"),
            None => command.arg("--no-tail"),
        };
        command.args(self.units.iter().map(|unit| format!("--unit={unit}"))).args(&self.arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let failed = |error: std::io::Error| JournalFault {
            reason: format!("{}: {error}", self.program.display()),
            absent: error.kind() == std::io::ErrorKind::NotFound,
        };
        let mut child = command.spawn().map_err(failed)?;
        let (sender, entries) = sync_channel(WAITING);
        let complaint = Arc::new(Mutex::new(String::new()));
        if let Some(stdout) = child.stdout.take() {
            let work = move || {
                let mut stdout = BufReader::new(stdout);
                while let Some(line) = next_line(&mut stdout) {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            };
            std::thread::Builder::new().name("journal".to_string()).spawn(work).map_err(failed)?;
        }
        if let Some(stderr) = child.stderr.take() {
            let last = complaint.clone();
            let work = move || {
                let mut stderr = BufReader::new(stderr);
                while let Some(line) = next_line(&mut stderr) {
                    let line = line.unwrap_or_default();
                    *last.lock().unwrap_or_else(PoisonError::into_inner) = line.chars().take(200).collect();
                }
            };
            std::thread::Builder::new().name("journal".to_string()).spawn(work).map_err(failed)?;
        }
        Ok(Running { child, entries, complaint, started: now, is_looking, has_spoken: false })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The next line; `None` within for one that is too long, and outside at the end.
fn next_line(reader: &mut impl BufRead) -> Option<Option<String>> {
    let mut bytes = Vec::new();
    let count = reader.take(ENTRY_BYTES as u64 + 1).read_until(b'\n', &mut bytes).ok()?;
    if count == 0 {
        return None;
    }
    if bytes.last() == Some(&b'\n') || bytes.len() <= ENTRY_BYTES {
        return Some(Some(String::from_utf8_lossy(&bytes).trim_end().to_string()));
    }
    // The rest of it, without keeping it.
    loop {
        let buffer = reader.fill_buf().ok()?;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let count = end.map_or(buffer.len(), |end| end + 1);
        reader.consume(count);
        if end.is_some() || count == 0 {
            return Some(None);
        }
    }
}

/// An entry of journalctl's JSON (systemd's documentation of its JSON format): values are texts, lists of bytes where they are none, and lists
/// where a field is there several times.
fn parsed(line: &str) -> Option<JournalEntry> {
    let Ok(Value::Object(object)) = serde_json::from_str(line) else { return None };
    let text = |name: &str| text_of(&object, name);
    let ts = text("__REALTIME_TIMESTAMP").and_then(|micros| micros.parse().ok()).map(Timestamp);
    let level = text("PRIORITY").and_then(|number| number.parse().ok()).and_then(Level::of_syslog);
    let fields = FIELDS.iter().filter_map(|(name, field)| Some((field.to_string(), text(name)?))).collect();
    let source = ["_SYSTEMD_UNIT", "SYSLOG_IDENTIFIER", "_COMM", "_TRANSPORT"].iter().find_map(|name| text(name));
    let mut message = text("MESSAGE").unwrap_or_default();
    if message.len() > LINE_BYTES {
        let end = (0..=LINE_BYTES).rev().find(|end| message.is_char_boundary(*end)).unwrap_or(0);
        message.truncate(end);
    }
    let (source, cursor) = (source.unwrap_or_else(|| "journal".to_string()), text("__CURSOR"));
    Some(JournalEntry { source, text: message, known: Known { ts, level, fields }, cursor })
}

fn text_of(object: &Map<String, Value>, name: &str) -> Option<String> {
    match object.get(name)? {
        Value::String(text) => Some(text.clone()),
        Value::Array(bytes) if bytes.iter().all(Value::is_u64) => {
            let bytes: Vec<u8> = bytes.iter().filter_map(Value::as_u64).map(|byte| byte as u8).collect();
            Some(String::from_utf8_lossy(&bytes).into_owned())
        }
        Value::Array(values) => values.iter().find_map(|value| value.as_str().map(str::to_string)),
        _ => None,
    }
}
