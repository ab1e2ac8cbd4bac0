//! The prompt of `tidewatch query`: statements over several lines, history, completion, and what psql's users expect.

use std::borrow::Cow;
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Editor, Helper};
use tidewatch_model::table;

use super::query::{Asking, print};
use super::tables;
use crate::failure::Failure;
use crate::output::{BatchPrinter, Format};

const HELP: &str = "  SELECT ...;        asks; a statement ends with ';' and may have several lines
  \\d                 tables
  \\d TABLE           the columns of one
  \\timing            says how long answers take, or not
  \\format FORMAT     table, json or csv
  \\?                 this
  \\q                 ends, as Ctrl-D does
  Tab completes names; the arrows go back to earlier statements
";

/// What a line did.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// There may be another.
    On,
    /// It was the last.
    End,
}

/// What lines act on.
pub struct Session<'a> {
    asking: &'a Asking,
    format: Format,
    timing: bool,
}

impl<'a> Session<'a> {
    /// At the start.
    pub fn new(asking: &'a Asking) -> Session<'a> {
        Session { asking, format: Format::Table, timing: true }
    }

    /// Does what a line says; what is wrong with it is printed, and is no end.
    pub fn line(&mut self, line: &str, out: &mut impl Write) -> Result<Step, Failure> {
        let line = line.trim();
        if let Some(command) = line.strip_prefix('\\') {
            let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
            return self.command(name, rest.trim().trim_end_matches(';'), out);
        }
        let sql = line.trim_end_matches(';').trim();
        if sql.is_empty() {
            return Ok(Step::On);
        }
        let begun = Instant::now();
        let mut printer = BatchPrinter::new(self.format, &mut *out);
        let answered = print(self.asking, sql, self.format, &mut printer).and_then(|()| printer.finish());
        match answered {
            Err(failure) => said(writeln!(out, "error: {}", failure.message))?,
            Ok(()) if self.timing => said(writeln!(out, "{:.3} s", begun.elapsed().as_secs_f64()))?,
            Ok(()) => {}
        }
        Ok(Step::On)
    }

    fn command(&mut self, name: &str, rest: &str, out: &mut impl Write) -> Result<Step, Failure> {
        match (name, rest) {
            ("q", _) => return Ok(Step::End),
            ("d", "") => said(write!(out, "{}", tables::text(None)?))?,
            ("d", table) => match tables::text(Some(table)) {
                Ok(text) => said(write!(out, "{text}"))?,
                Err(failure) => said(writeln!(out, "error: {}", failure.message))?,
            },
            ("timing", _) => {
                self.timing = !self.timing;
                said(writeln!(out, "timing is {}", if self.timing { "on" } else { "off" }))?;
            }
            ("format", "table") => self.format = Format::Table,
            ("format", "json") => self.format = Format::Json,
            ("format", "csv") => self.format = Format::Csv,
            ("format", other) => said(writeln!(out, "error: '{other}': expected table, json or csv"))?,
            ("?", _) => said(write!(out, "{HELP}"))?,
            _ => said(writeln!(out, "error: unknown command '\\{name}': \\? lists them"))?,
        }
        Ok(Step::On)
    }
}

fn said(written: std::io::Result<()>) -> Result<(), Failure> {
    written.map_err(Failure::output)
}

/// Reads lines until the end.
pub fn run(asking: &Asking) -> Result<(), Failure> {
    let mut editor: Editor<Assistant, FileHistory> = Editor::new().map_err(Failure::no)?;
    editor.set_helper(Some(Assistant));
    let kept = history_file();
    if let Some(file) = &kept {
        // The first time there is none.
        drop(editor.load_history(file));
    }
    let mut session = Session::new(asking);
    let mut out = std::io::stdout();
    said(writeln!(out, "\\? for help, \\d for tables, \\q to end"))?;
    loop {
        match editor.readline("tidewatch> ") {
            Ok(line) => {
                editor.add_history_entry(line.trim()).map_err(Failure::no)?;
                if session.line(&line, &mut out)? == Step::End {
                    break;
                }
            }
            // A statement that was begun is given up.
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(Failure::no(error)),
        }
    }
    if let Some(file) = &kept {
        let folder = file.parent().map_or(Ok(()), std::fs::create_dir_all);
        // Statements that are not remembered are no reason to fail.
        drop(folder.map(|()| editor.save_history(file)));
    }
    Ok(())
}

/// `$XDG_STATE_HOME/tidewatch/query_history`, by default below `~/.local/state` (the XDG Base Directory Specification).
fn history_file() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let state = set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state")))?;
    Some(state.join("tidewatch/query_history"))
}

/// Completes, and knows where a statement ends.
struct Assistant;

impl Helper for Assistant {}

impl Highlighter for Assistant {}

impl Hinter for Assistant {
    type Hint = String;
}

impl Completer for Assistant {
    type Candidate = Pair;

    fn complete(&self, line: &str, end: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let (start, names) = completions(line, end);
        let pair = |name: Cow<'_, str>| Pair { display: name.to_string(), replacement: name.to_string() };
        Ok((start, names.into_iter().map(pair).collect()))
    }
}

/// Words that statements are made of.
const WORDS: [&str; 22] = [
    "SELECT",
    "FROM",
    "WHERE",
    "GROUP BY",
    "ORDER BY",
    "HAVING",
    "LIMIT",
    "JOIN",
    "AND",
    "OR",
    "NOT",
    "NULL",
    "INTERVAL",
    "BETWEEN",
    "DESC",
    "EXPLAIN ANALYZE",
    "WITH",
    "count(*)",
    "avg(",
    "max(",
    "date_trunc(",
    "approx_percentile_cont(",
];

/// Where the word begins that ends here, and what it may become: tables, columns of the tables that the line names (of all while it
/// names none), and the language's words.
fn completions(line: &str, end: usize) -> (usize, Vec<Cow<'static, str>>) {
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
    let head = line.get(..end).unwrap_or(line);
    let last = head.char_indices().rfind(|(_, letter)| !is_part(*letter));
    let start = last.map_or(0, |(place, letter)| place + letter.len_utf8());
    let word = &head[start..];
    let all = table::all();
    let named: Vec<_> = all
        .iter()
        .filter(|table| line.split(|letter| !is_part(letter)).any(|part| part == table.name && part != word))
        .collect();
    let columns = match named.is_empty() {
        true => all.iter().flat_map(|table| table.columns).collect::<Vec<_>>(),
        false => named.iter().flat_map(|table| table.columns).collect(),
    };
    let names = all.iter().map(|table| table.name).chain(columns.into_iter().map(|column| column.name)).chain(["ts"]);
    let mut found: Vec<Cow<'static, str>> =
        names.filter(|name| !word.is_empty() && name.starts_with(word)).map(Cow::from).collect();
    let is_upper = word.chars().all(|letter| letter.is_uppercase());
    let words = WORDS.iter().filter(|name| !word.is_empty() && name.to_lowercase().starts_with(&word.to_lowercase()));
    found.extend(words.map(|name| if is_upper { Cow::from(*name) } else { Cow::from(name.to_lowercase()) }));
    found.sort();
    found.dedup();
    (start, found)
}

impl Validator for Assistant {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(if is_whole(context.input()) { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

/// A command, nothing, or a statement with its semicolon.
fn is_whole(text: &str) -> bool {
    let text = text.trim();
    text.is_empty() || text.starts_with('\\') || text.ends_with(';')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;
    use std::ops::Range;
    use std::sync::Arc;

    use tidewatch_model::ports::{Scan, ScanError, Snapshot};
    use tidewatch_sql::History;

    use super::*;
    use crate::progress::WatchedScan;

    struct Empty;

    impl Scan for Empty {
        fn snapshot(&self, _: &[String]) -> Result<BTreeMap<String, Snapshot>, ScanError> {
            Ok(BTreeMap::new())
        }

        fn read(&self, path: &str, _: &[Range<u64>]) -> Result<Vec<Vec<u8>>, ScanError> {
            Err(ScanError::Unreadable(path.to_string()))
        }
    }

    fn play(lines: &[&str]) -> (String, Step) {
        let progress = Arc::new(WatchedScan::new(Arc::new(Empty)));
        let history = History::new(progress.clone(), 1).unwrap();
        let asking = Asking { history, progress };
        let mut session = Session::new(&asking);
        let mut out = Vec::new();
        session.line("\\timing", &mut out).unwrap();
        out.clear();
        let last = lines.iter().map(|line| session.line(line, &mut out).unwrap()).last().unwrap();
        (String::from_utf8(out).unwrap(), last)
    }

    #[test]
    fn a_session_answers_and_goes_on_after_mistakes() {
        let (said, last) =
            play(&["\\format csv", "SELECT 1 AS one;", "SELEC 2;", "SELECT count(*) AS n FROM gpu;", ""]);
        assert!(said.starts_with("one\n1\nerror: ") && said.ends_with("n\n0\n"), "{said}");
        assert_eq!(last, Step::On);
        assert!(play(&["\\d"]).0.contains("gpu_event"));
        assert!(play(&["\\d gpu"]).0.contains("temperature_celsius"));
        assert!(play(&["\\d gpuu"]).0.contains("did you mean 'gpu'"));
        assert!(play(&["\\x"]).0.contains("\\? lists them"));
        assert!(play(&["\\format xml"]).0.contains("expected table, json or csv"));
        assert!(play(&["\\?"]).0.contains("\\timing"));
        assert!(play(&["\\timing", "SELECT 1;"]).0.contains(" s\n"));
        assert_eq!(play(&["\\q"]).1, Step::End);
    }

    #[test]
    fn names_are_completed_and_statements_end_with_a_semicolon() {
        let of = |line: &str| completions(line, line.len()).1.join(" ");
        assert_eq!(of("SELECT temperature_c"), "temperature_celsius");
        assert_eq!(of("SELECT * FROM gpu_e"), "gpu_event");
        assert_eq!(
            completions("SELECT load FROM host", 11),
            (7, vec!["load1".into(), "load15".into(), "load5".into()])
        );
        assert_eq!(of("SELECT '€'°gpu_e"), "gpu_event");
        assert_eq!(of("SEL"), "SELECT");
        assert_eq!(of("sel"), "select");
        assert_eq!(of("SELECT "), "");
        for (text, whole) in
            [("SELECT 1", false), ("SELECT 1;", true), ("\\d", true), ("", true), ("SELECT\n1 ;\n", true)]
        {
            assert_eq!(is_whole(text), whole, "{text}");
        }
    }
}
