//! Finding rules: the bundled ones, files, and folders of `.sql` files.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tidewatch_flow::template;
use tidewatch_sql::bundled::{self, RuleFile};
use tidewatch_sql::{Compiler, Dimensions, Fault, Level, Loaded, Location};

use crate::failure::Failure;

/// Which of the bundled rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bundled {
    /// None.
    None,
    /// Those of sql/rules, for every machine.
    Core,
    /// Those of sql/pack too: training, serving, data jobs, InfiniBand.
    All,
}

impl Bundled {
    /// All of them, or those for every machine, where no path is given.
    pub fn unless(paths: &[PathBuf], all: bool) -> Bundled {
        match (paths, all) {
            (_, true) => Bundled::All,
            ([], false) => Bundled::Core,
            _ => Bundled::None,
        }
    }

    /// Their files.
    pub fn files(self) -> impl Iterator<Item = &'static RuleFile> {
        let core = if self == Bundled::None { &[] } else { bundled::FILES };
        let pack = if self == Bundled::All { bundled::PACK } else { &[] };
        core.iter().chain(pack)
    }
}

impl FromStr for Bundled {
    type Err = String;

    fn from_str(text: &str) -> Result<Bundled, String> {
        match text {
            "false" => Ok(Bundled::None),
            "true" => Ok(Bundled::Core),
            "all" => Ok(Bundled::All),
            other => Err(format!("'{other}' is not true, all or false")),
        }
    }
}

impl fmt::Display for Bundled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Bundled::None => "false",
            Bundled::Core => "true",
            Bundled::All => "all",
        })
    }
}

/// Every `.sql` file that the paths name, folders searched through, sorted.
///
/// # Errors
/// A path that can't be read.
pub fn sql_files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    files_with(paths, ".sql")
}

/// Every file that the paths name and whose name ends so, folders searched through, sorted.
///
/// # Errors
/// A path that can't be read.
pub fn files_with(paths: &[PathBuf], ending: &str) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    for path in paths {
        collect(path, ending, &mut found)?;
    }
    found.sort();
    found.dedup();
    Ok(found)
}

fn collect(path: &Path, ending: &str, found: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let unreadable = |error: std::io::Error| Failure::usage(format!("{}: {error}", path.display()));
    if !std::fs::metadata(path).map_err(unreadable)?.is_dir() {
        found.push(path.to_path_buf());
        return Ok(());
    }
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let inside = entry.map_err(unreadable)?.path();
        let name = inside.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if inside.is_dir() || name.ends_with(ending) {
            collect(&inside, ending, found)?;
        }
    }
    Ok(())
}

/// Compiles rules from files, and the bundled ones when asked for, over these dimension tables.
///
/// # Errors
/// A path that can't be read; faults within the files are in the result.
pub fn load(paths: &[PathBuf], with_bundled: Bundled, dimensions: &Dimensions) -> Result<Loaded, Failure> {
    load_with(paths, None, with_bundled, dimensions)
}

/// The same, and a text with the name that its faults are to have.
///
/// # Errors
/// As [`load`].
pub fn load_with(
    paths: &[PathBuf],
    text: Option<(String, String)>,
    with_bundled: Bundled,
    dimensions: &Dimensions,
) -> Result<Loaded, Failure> {
    let compiler = Compiler::with(dimensions).map_err(Failure::no)?;
    let mut loaded = Loaded::default();
    let mut texts = Vec::new();
    for file in sql_files(paths)? {
        let text =
            std::fs::read_to_string(&file).map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?;
        texts.push((file.display().to_string(), text));
    }
    texts.extend(text);
    compiler.load_files(texts.iter().map(|(file, text)| (file.as_str(), text.as_str())), &mut loaded);
    let own: Vec<String> = loaded.rules.iter().map(|rule| rule.rule.name.clone()).collect();
    // A rule of one's own replaces the bundled one of the same name.
    for file in with_bundled.files().filter(|file| !own.iter().any(|name| name == file.rule_name())) {
        compiler.load(file.path, file.sql, &mut loaded);
    }
    check_templates(&mut loaded);
    Ok(loaded)
}

/// Templates are checked when a rule loads, not when it first fires at night.
fn check_templates(loaded: &mut Loaded) {
    let mut broken = Vec::new();
    for compiled in &loaded.rules {
        let rule = &compiled.rule;
        let mut known: Vec<&str> = compiled.outputs.iter().map(String::as_str).collect();
        known.extend(rule.options.labels.keys().map(String::as_str));
        known.push("alertname");
        for (name, text) in &rule.options.annotations {
            if let Err(message) = template::check(text, &known) {
                let location = place(&rule.source);
                broken.push(rule.name.clone());
                let message = format!("{name}: {message}");
                loaded.faults.push(Fault { level: Level::Error, location, rule: Some(rule.name.clone()), message });
            }
        }
    }
    loaded.rules.retain(|compiled| !broken.contains(&compiled.rule.name));
}

/// `file:line:column` taken apart again.
fn place(source: &str) -> Location {
    let mut parts = source.rsplitn(3, ':');
    let column = parts.next().and_then(|text| text.parse().ok());
    let line = parts.next().and_then(|text| text.parse().ok());
    match (parts.next(), line, column) {
        (Some(file), Some(line), Some(column)) => Location { file: file.to_string(), line, column },
        _ => Location::of_file(source),
    }
}
