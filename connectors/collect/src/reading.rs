//! Reading small files under /proc and /sys, and the numbers in them. Nothing here panics on damaged input: what cannot
//! be read becomes an [`Unreadable`] with its reason.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// The longest file that is read; beyond it the file counts as unreadable. The largest one in practice is
/// /proc/self/mountinfo of a container host: some hundred bytes for each of some thousand mounts.
const FILE_BYTES: u64 = 4 << 20;

/// What the first call asks for.
const FIRST_BYTES: usize = 4 << 10;

/// "Operation not supported" on Linux: what /proc/pressure/* answers when PSI is switched off at boot.
const NOT_SUPPORTED: i32 = 95;

/// Where /proc, /sys and the kubelet's folder of logs are, so that a recorded tree can stand for a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    /// Stands for /proc. `etc/passwd` is looked for beside it.
    pub proc: PathBuf,
    /// Stands for /sys.
    pub sys: PathBuf,
    /// Stands for /var/log/pods.
    pub pods: PathBuf,
}

impl Default for Roots {
    /// This machine.
    fn default() -> Self {
        Roots { proc: PathBuf::from("/proc"), sys: PathBuf::from("/sys"), pods: PathBuf::from("/var/log/pods") }
    }
}

impl Roots {
    /// A recorded tree, with `proc`, `sys` and `pods` in this folder.
    pub fn recorded(folder: &Path) -> Roots {
        Roots { proc: folder.join("proc"), sys: folder.join("sys"), pods: folder.join("pods") }
    }

    /// Whether /proc is this machine's own, so that a mount point found there can be asked for its size.
    pub fn is_live(&self) -> bool {
        self.proc == Path::new("/proc")
    }

    /// A file under /proc.
    pub(crate) fn proc_file(&self, path: &str) -> Result<String, Unreadable> {
        read(&self.proc.join(path), Answers::ByAndBy)
    }

    /// A file under /sys.
    pub(crate) fn sys_file(&self, path: &str) -> Result<String, Unreadable> {
        read(&self.sys.join(path), Answers::AtOnce)
    }

    /// The list of accounts: `etc/passwd` beside the /proc that is read, since a recorded tree has its own.
    pub(crate) fn accounts_file(&self) -> Result<String, Unreadable> {
        let folder = self.proc.parent().unwrap_or(Path::new("/"));
        read(&folder.join("etc/passwd"), Answers::ByAndBy)
    }
}

/// The machine's name: /proc/sys/kernel/hostname under the root; `None` when it is empty or cannot be read.
pub fn host_name(roots: &Roots) -> Option<String> {
    let name = roots.proc_file("sys/kernel/hostname").ok()?.trim().to_string();
    (!name.is_empty()).then_some(name)
}

/// Why a value could not be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unreadable {
    /// The file or the value, and what was wrong.
    pub reason: String,
    /// This machine has no such source at all, as opposed to one that is damaged or refused.
    pub absent: bool,
}

impl Unreadable {
    /// The source is there, and what it says makes no sense.
    pub fn damaged(reason: impl Into<String>) -> Self {
        Unreadable { reason: reason.into(), absent: false }
    }

    /// There is no such source here.
    pub fn absent(reason: impl Into<String>) -> Self {
        Unreadable { reason: reason.into(), absent: true }
    }
}

/// How a file system answers a call for more than a file has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answers {
    /// With all of it: files of sysfs and of control groups are one record.
    AtOnce,
    /// Perhaps with a part, as /proc does between two records: only an empty answer is the end.
    ByAndBy,
}

fn read(path: &Path, answers: Answers) -> Result<String, Unreadable> {
    let failed = |error: std::io::Error| Unreadable {
        reason: format!("{}: {error}", path.display()),
        absent: error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(NOT_SUPPORTED),
    };
    let mut file = File::open(path).map_err(failed)?;
    let mut first = [0; FIRST_BYTES];
    let length = file.read(&mut first).map_err(failed)?;
    let mut bytes = first[..length].to_vec();
    if length > 0 && (answers == Answers::ByAndBy || length == FIRST_BYTES) {
        file.take(FILE_BYTES + 1 - length as u64).read_to_end(&mut bytes).map_err(failed)?;
    }
    if bytes.len() as u64 > FILE_BYTES {
        return Err(Unreadable::damaged(format!("{}: over the limit of {FILE_BYTES} bytes", path.display())));
    }
    // Names of processes and mount points may be any bytes.
    Ok(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// A whole number. Counters over 2^63 - 1 have no place in an Int64 column and count as damaged.
pub(crate) fn integer(text: &str, what: &str) -> Result<i64, Unreadable> {
    text.trim().parse().map_err(|_| Unreadable::damaged(format!("{what}: '{}' is not a whole number", shortened(text))))
}

/// A finite number. `parse` alone would take "nan" and "inf".
pub(crate) fn float(text: &str, what: &str) -> Result<f64, Unreadable> {
    let number = text.trim().parse().ok().filter(|number: &f64| number.is_finite());
    number.ok_or_else(|| Unreadable::damaged(format!("{what}: '{}' is not a number", shortened(text))))
}

/// The field at `index` of a list, as a whole number.
pub(crate) fn integer_at(fields: &[&str], index: usize, what: &str) -> Result<i64, Unreadable> {
    match fields.get(index) {
        Some(text) => integer(text, what),
        None => Err(Unreadable::damaged(format!("{what}: {} fields, field {} is missing", fields.len(), index + 1))),
    }
}

/// The rest of the line whose first word is `key`, with or without a colon after it. A file that is there and lacks the
/// key comes from a kernel that does not count it.
pub(crate) fn value_of<'a>(text: &'a str, key: &str, file: &str) -> Result<&'a str, Unreadable> {
    for line in text.lines() {
        let Some(rest) = line.strip_prefix(key) else { continue };
        let rest = rest.strip_prefix(':').unwrap_or(rest);
        if rest.starts_with([' ', '\t']) {
            return Ok(rest.trim());
        }
    }
    Err(Unreadable::absent(format!("{file}: no {key}")))
}

/// `avg10` of a line of a pressure file, `some` or `full`, as a ratio.
pub(crate) fn pressure_average(text: &str, kind: &str, file: &str) -> Result<f64, Unreadable> {
    let field = value_of(text, kind, file)?.split_whitespace().find_map(|field| field.strip_prefix("avg10="));
    let percent = float(field.ok_or_else(|| Unreadable::damaged(format!("{file}: no avg10")))?, file)?;
    Ok((percent / 100.0).clamp(0.0, 1.0))
}

/// Names of what lies in a folder, in order; none where there is no such folder.
pub(crate) fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// So that a damaged file does not become a message of a megabyte.
fn shortened(text: &str) -> String {
    text.trim().chars().take(40).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_strict() {
        assert_eq!(integer(" 42\n", "x"), Ok(42));
        assert_eq!(
            integer("9223372036854775808", "x").unwrap_err().reason,
            "x: '9223372036854775808' is not a whole number"
        );
        assert_eq!(float("0.25", "x"), Ok(0.25));
        for text in ["", "nan", "inf", "1,5", "0x10"] {
            assert!(float(text, "x").is_err(), "{text}");
        }
        assert_eq!(integer_at(&["1"], 1, "row").unwrap_err().reason, "row: 1 fields, field 2 is missing");
    }

    #[test]
    fn keys_are_whole_words() {
        let text = "MemTotalHuge: 1 kB\nMemTotal:   24 kB\noom_kill_x 7\noom_kill 3\n";
        assert_eq!(value_of(text, "MemTotal", "f"), Ok("24 kB"));
        assert_eq!(value_of(text, "oom_kill", "f"), Ok("3"));
        assert_eq!(value_of(text, "Swap", "f"), Err(Unreadable::absent("f: no Swap")));
    }

    #[test]
    fn a_missing_file_is_absent_and_a_folder_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let roots = Roots { proc: folder.path().to_path_buf(), sys: folder.path().to_path_buf(), ..Roots::default() };
        assert!(roots.proc_file("stat").unwrap_err().absent);
        std::fs::create_dir(folder.path().join("stat")).unwrap();
        assert!(!roots.proc_file("stat").unwrap_err().absent);
        assert!(!roots.is_live() && Roots::default().is_live());
    }

    #[test]
    fn a_file_over_the_limit_and_one_that_is_not_text() {
        let folder = tempfile::tempdir().unwrap();
        let roots = Roots { proc: folder.path().to_path_buf(), sys: folder.path().to_path_buf(), ..Roots::default() };
        std::fs::write(folder.path().join("big"), vec![b'1'; FILE_BYTES as usize + 1]).unwrap();
        assert!(roots.sys_file("big").unwrap_err().reason.ends_with("over the limit of 4194304 bytes"));
        std::fs::write(folder.path().join("bytes"), b"a\xFFb").unwrap();
        assert_eq!(roots.sys_file("bytes").unwrap(), "a\u{FFFD}b");
    }

    #[test]
    fn the_host_name() {
        let folder = tempfile::tempdir().unwrap();
        let roots = Roots { proc: folder.path().to_path_buf(), sys: folder.path().to_path_buf(), ..Roots::default() };
        assert_eq!(host_name(&roots), None);
        std::fs::create_dir_all(folder.path().join("sys/kernel")).unwrap();
        std::fs::write(folder.path().join("sys/kernel/hostname"), "node-7\n").unwrap();
        assert_eq!(host_name(&roots).as_deref(), Some("node-7"));
        std::fs::write(folder.path().join("sys/kernel/hostname"), "\n").unwrap();
        assert_eq!(host_name(&roots), None);
    }
}
