//! The table `kernel_event`: what the kernel said that somebody should know, from /dev/kmsg (Documentation/ABI/testing/dev-kmsg).
//! XIDs among it are handed to the GPUs' supervisor too, which knows whether NVML told of them.

mod said;

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use tidewatch_model::{Span, Timestamp};

use crate::collector::{Collected, Collector};
use crate::fault::Faults;
use crate::gpu::{GpuControl, KernelXid};
use crate::reading::{Roots, Unreadable, float};
use crate::rows::{Rows, RowsError};
use said::{Said, meaning};

/// Where the kernel's messages are.
pub const KMSG: &str = "/dev/kmsg";

/// `O_NONBLOCK` on Linux (include/uapi/asm-generic/fcntl.h): without it a read waits for the next message.
const NONBLOCK: i32 = 0o4000;
/// "Broken pipe": what a read answers when messages were overwritten before they were read.
const OVERWRITTEN: i32 = 32;
/// "Invalid argument": what it answers when a message is larger than the buffer.
const TOO_LARGE: i32 = 22;
/// A message with its head and properties takes at most so much (kernel/printk/printk.c, `PRINTKRB_RECORD_MAX` and what comes on top).
const MESSAGE_BYTES: usize = 16 << 10;
/// Messages of one pass; the rest is for the next.
const MESSAGES: usize = 10_000;
/// Rows of one pass: a disk that dies says the same for ever.
const ROWS: usize = 200;
/// Messages that are older at the very first start are not ours to tell.
const FIRST_LOOK: Span = Span::minutes(10);

/// Reads the kernel's messages.
pub struct KernelCollector {
    roots: Roots,
    host: String,
    source: PathBuf,
    /// Where it is written down how far they were read.
    state: Option<PathBuf>,
    gpus: Option<GpuControl>,
    file: Option<File>,
    /// What was read and is no whole line yet.
    rest: Vec<u8>,
    /// The last message that was taken, of this boot.
    last: Option<u64>,
    /// When it was read last: what came since then was said since then.
    read_at: Option<Timestamp>,
    /// The last message that is written down.
    kept: Option<u64>,
    faults: Faults,
}

/// One message.
#[derive(Debug, PartialEq, Eq)]
struct Message<'a> {
    seq: u64,
    /// Microseconds since the machine started.
    at: i64,
    text: &'a str,
}

impl KernelCollector {
    /// Of a source such as [`KMSG`]. With `state` a restart goes on where it was; without it, it begins with the last minutes.
    pub fn new(
        roots: Roots,
        host: &str,
        source: &Path,
        state: Option<PathBuf>,
        gpus: Option<GpuControl>,
    ) -> KernelCollector {
        KernelCollector {
            roots,
            host: host.to_string(),
            source: source.to_path_buf(),
            state,
            gpus,
            file: None,
            rest: Vec::new(),
            last: None,
            read_at: None,
            kept: None,
            faults: Faults::default(),
        }
    }

    /// What is there and was not read yet, as lines.
    fn lines(&mut self) -> Result<Vec<String>, Unreadable> {
        let path = self.source.display().to_string();
        if self.file.is_none() {
            let opened = File::options().read(true).custom_flags(NONBLOCK).open(&self.source);
            self.file = Some(opened.map_err(|error| {
                // Without the right to read it there is nothing to be told every second.
                let is_usual = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied);
                let hint =
                    if error.kind() == ErrorKind::PermissionDenied { " (it needs root or CAP_SYSLOG)" } else { "" };
                Unreadable { reason: format!("{path}: {error}{hint}"), absent: is_usual }
            })?);
        }
        let mut lines = Vec::new();
        let mut buffer = vec![0; MESSAGE_BYTES];
        while let (Some(file), true) = (&mut self.file, lines.len() < MESSAGES) {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    self.rest.extend_from_slice(&buffer[..count]);
                    let whole = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
                    let text = String::from_utf8_lossy(&self.rest[..whole]).into_owned();
                    lines.extend(text.lines().map(str::to_string));
                    self.rest.drain(..whole);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.raw_os_error(), Some(OVERWRITTEN | TOO_LARGE)) => {
                    self.faults.note("", Unreadable::damaged(format!("{path}: messages were lost: {error}")));
                }
                Err(error) => {
                    self.file = None;
                    return Err(Unreadable::damaged(format!("{path}: {error}")));
                }
            }
        }
        Ok(lines)
    }

    /// When the machine started.
    fn started(&mut self, now: Timestamp) -> Option<Timestamp> {
        let uptime = self.roots.proc_file("uptime").and_then(|text| {
            let seconds = text.split_whitespace().next().unwrap_or_default();
            float(seconds, "uptime")
        });
        let uptime = self.faults.keep("ts", uptime)?;
        Some(now.saturating_sub(Span::micros((uptime * 1e6) as i64)))
    }

    fn boot(&self) -> String {
        self.roots.proc_file("sys/kernel/random/boot_id").unwrap_or_default().trim().to_string()
    }

    /// The last message of this boot that an earlier start took.
    fn restore(&mut self) {
        let Some(text) = self.state.as_ref().and_then(|path| std::fs::read_to_string(path).ok()) else { return };
        let Some((boot, seq)) = text.trim().split_once(' ') else { return };
        // After another boot everything is new.
        self.last = if boot == self.boot() { seq.parse().ok() } else { Some(0) };
    }

    fn keep(&mut self) {
        let (Some(path), Some(last)) = (&self.state, self.last) else { return };
        let text = format!("{} {last}\n", self.boot());
        let staged = path.with_extension("new");
        let written = std::fs::write(&staged, text).and_then(|()| std::fs::rename(&staged, path));
        if let Err(error) = written {
            self.faults.note("", Unreadable::damaged(format!("{}: {error}", path.display())));
        }
    }

    fn rows(&mut self, now: Timestamp) -> Result<Rows, RowsError> {
        let mut rows = Rows::of("kernel_event")?;
        let read_at = self.read_at.replace(now);
        if read_at.is_none() {
            self.restore();
            self.kept = self.last;
        }
        // What the pass before took is in the log by now: it is not told again.
        if self.last != self.kept {
            self.keep();
            self.kept = self.last;
        }
        let Some(started) = self.started(now) else { return Ok(rows) };
        let lines = self.lines();
        let Some(lines) = self.faults.keep("", lines).filter(|lines| !lines.is_empty()) else { return Ok(rows) };
        // At the very first start nobody knows what was told before.
        let first = if self.last.is_none() { now.saturating_sub(FIRST_LOOK) } else { Timestamp::MIN };
        let (before, mut left_out) = (self.last, 0);
        for message in lines.iter().filter_map(|line| parsed(line)) {
            // The kernel's clock for messages drifts from the one that says how long the machine runs: by seconds in a week.
            let ts = (started + Span::micros(message.at)).max(read_at.unwrap_or(Timestamp::MIN)).min(now);
            if before.is_some_and(|before| before > 0 && message.seq <= before) {
                continue;
            }
            self.last = Some(self.last.unwrap_or(0).max(message.seq));
            let Some(said) = meaning(message.text).filter(|_| ts >= first) else { continue };
            if let (Some(gpus), "xid", Some(code)) = (&self.gpus, said.kind, said.code) {
                let pci = said.pci.clone().unwrap_or_default();
                gpus.said_by_kernel(KernelXid { ts, pci, code, message: message.text.to_string() });
            }
            if rows.len() == ROWS {
                left_out += 1;
                continue;
            }
            let Said { kind, device, pci, pid, process, .. } = said;
            let cells = [
                ("host", self.host.as_str().into()),
                ("kind", kind.into()),
                ("device", device.into()),
                ("pci_bus_id", pci.into()),
                ("pid", pid.into()),
                ("process_name", process.into()),
                ("message", message.text.into()),
            ];
            rows.push(ts, cells)?;
        }
        if left_out > 0 {
            self.faults
                .note("", Unreadable::damaged(format!("{left_out} messages beyond {ROWS} a second are not kept")));
        }
        Ok(rows)
    }
}

/// `priority,sequence,microseconds,flags[,more];text`; what begins with a blank are properties of the message before.
fn parsed(line: &str) -> Option<Message<'_>> {
    let (head, text) = line.split_once(';')?;
    if head.starts_with(' ') {
        return None;
    }
    let mut fields = head.split(',').skip(1);
    Some(Message { seq: fields.next()?.parse().ok()?, at: fields.next()?.parse().ok()?, text })
}

impl Collector for KernelCollector {
    fn table(&self) -> &'static str {
        "kernel_event"
    }

    fn interval(&self) -> Span {
        Span::seconds(1)
    }

    fn collect(&mut self, now: Timestamp) -> Collected {
        let rows = self.rows(now);
        self.faults.collected(rows)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write;

    use arrow::array::{AsArray, RecordBatch};
    use arrow::datatypes::TimestampMicrosecondType;

    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

    /// A machine that started two hours ago.
    fn machine() -> (tempfile::TempDir, Roots, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let roots = Roots { proc: folder.path().to_path_buf(), sys: folder.path().to_path_buf(), ..Roots::default() };
        std::fs::create_dir_all(folder.path().join("sys/kernel/random")).unwrap();
        std::fs::write(folder.path().join("sys/kernel/random/boot_id"), "b1\n").unwrap();
        std::fs::write(folder.path().join("uptime"), "7200.00 100.00\n").unwrap();
        let kmsg = folder.path().join("kmsg");
        std::fs::write(&kmsg, "").unwrap();
        (folder, roots, kmsg)
    }

    fn say(kmsg: &Path, lines: &str) {
        File::options().append(true).open(kmsg).unwrap().write_all(lines.as_bytes()).unwrap();
    }

    fn kinds(batch: Option<RecordBatch>) -> Vec<(i64, String)> {
        let Some(batch) = batch else { return vec![] };
        let times = batch.column(0).as_primitive::<TimestampMicrosecondType>().values().to_vec();
        let kinds = batch.column_by_name("kind").unwrap().as_string::<i32>();
        let ago = |ts: &i64| (NOW.0 - ts) / 1_000_000;
        times.iter().map(ago).zip(kinds.iter().map(|kind| kind.unwrap().to_string())).collect()
    }

    #[test]
    fn messages_become_rows_once_over_restarts_and_reboots() {
        let (folder, roots, kmsg) = machine();
        let state = folder.path().join("kmsg.state");
        let start = || KernelCollector::new(roots.clone(), "n1", &kmsg, Some(state.clone()), None);
        // An hour ago, five minutes ago, and a property of the latter.
        say(&kmsg, "6,10,3600000000,-;nvme nvme0: I/O 1 QID 1 timeout, aborting\n");
        say(
            &kmsg,
            "3,11,6900000000,-;INFO: task ls:7 blocked for more than 120 seconds.\n SUBSYSTEM=block\n DEVICE=b8:0\n",
        );
        let mut collector = start();
        assert_eq!(kinds(collector.collect(NOW).batch), [(300, "hung_task".to_string())], "what is old is not told");
        // A line that is not whole waits for its end.
        say(&kmsg, "3,12,7199000000,-;watchdog: BUG: soft lock");
        assert_eq!(kinds(collector.collect(NOW).batch), []);
        say(&kmsg, "up - CPU#1 stuck for 22s! [python:9]\n6,13,7199100000,-;eth0: renamed\n");
        let later = collector.collect(NOW + Span::seconds(1));
        assert_eq!(kinds(later.batch), [(0, "soft_lockup".to_string())], "it was said since the last look");
        // Written down once the log has it.
        collector.collect(NOW + Span::seconds(2));
        drop(collector);
        say(&kmsg, "3,14,7199500000,-;Buffer I/O error on dev sdb1, logical block 0\n");
        let mut collector = start();
        assert_eq!(
            kinds(collector.collect(NOW).batch),
            [(0, "io_error".to_string())],
            "only what is new after a restart"
        );
        assert_eq!(kinds(start().collect(NOW).batch), [(0, "io_error".to_string())], "it may not have reached the log");
        collector.collect(NOW);
        assert_eq!(kinds(start().collect(NOW).batch), []);
        // After a boot the numbers begin anew, and everything is new.
        std::fs::write(folder.path().join("sys/kernel/random/boot_id"), "b2\n").unwrap();
        std::fs::write(&kmsg, "3,2,6000000000,-;EXT4-fs (sda1): Remounting filesystem read-only\n").unwrap();
        assert_eq!(kinds(start().collect(NOW).batch), [(1_200, "filesystem_read_only".to_string())]);
    }

    #[test]
    fn a_flood_is_bounded_and_counted() {
        let (_folder, roots, kmsg) = machine();
        let mut collector = KernelCollector::new(roots, "n1", &kmsg, None, None);
        for seq in 0..ROWS + 50 {
            say(&kmsg, &format!("3,{seq},7199000000,-;Buffer I/O error on dev sdb1, logical block {seq}\n"));
        }
        let collected = collector.collect(NOW);
        assert_eq!(collected.batch.unwrap().num_rows(), ROWS);
        assert!(collected.faults[0].reason.contains("50 messages beyond 200"), "{:?}", collected.faults);
    }

    #[test]
    fn a_source_that_is_missing_is_told_once() {
        let (folder, roots, _) = machine();
        let mut collector = KernelCollector::new(roots, "n1", &folder.path().join("none"), None, None);
        assert_eq!(collector.collect(NOW).faults.len(), 1);
        assert_eq!(collector.collect(NOW).faults.len(), 0);
    }

    /// Recorded messages of an H100 machine, where they are at hand: nothing on it was wrong.
    #[test]
    fn a_recorded_machine_says_nothing_bad() {
        let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/kmsg/kmsg.1.log");
        let Ok(text) = std::fs::read_to_string(&recorded) else { return };
        let messages: Vec<Message<'_>> = text.lines().filter_map(parsed).collect();
        assert!(messages.len() > 20);
        assert!(messages.iter().all(|message| meaning(message.text).is_none()));
    }
}
