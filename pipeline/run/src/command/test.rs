//! `tidewatch test`: unit tests of rules.

use std::path::{Path, PathBuf};

use tidewatch_sql::{CompiledRule, Compiler, Dimensions, Loaded, bundled};

use crate::dimension_files::TableFlags;
use crate::failure::Failure;
use crate::rule_files::{self, Bundled};
use crate::rule_test::TestFile;

/// Tests to run.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidewatch test                         the bundled rules' tests\n  tidewatch test rules/                  every .test.yaml file below a folder\n  tidewatch test rules/gpu_hot.test.yaml\n\nExit code: 0 when all pass, 1 when one fails, 2 when a path can't be read."
)]
pub struct Args {
    /// Files or folders; the bundled rules' tests when none is given.
    paths: Vec<PathBuf>,
    /// The bundled rules of sql/pack too.
    #[arg(long)]
    all_rules: bool,
    #[command(flatten)]
    tables: TableFlags,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let dimensions = args.tables.load()?;
    let mut outcome = Outcome { passed: 0, failures: vec![], dimensions };
    if args.paths.is_empty() {
        for file in Bundled::unless(&args.paths, args.all_rules).files() {
            outcome.file(file.path, file.test, |_| Ok(compile(&[(file.path, file.sql)])));
        }
        for file in bundled::VIEWS {
            // Every rule sees the bundled views.
            outcome.file(file.path, file.test, |parsed| Ok(compile(&[(&test_name(file.path), &parsed.rules)])));
        }
    }
    for path in rule_files::files_with(&args.paths, ".test.yaml")? {
        let text =
            std::fs::read_to_string(&path).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
        outcome.file(&path.display().to_string(), &text, |parsed| load_beside(&path, parsed, &args.tables));
    }
    let summary = format!("{} passed, {} failed", outcome.passed, outcome.failures.len());
    for failure in &outcome.failures {
        eprintln!("{failure}");
    }
    println!("{summary}");
    if outcome.failures.is_empty() {
        Ok(())
    } else {
        Err(Failure::no(format!("{} tests failed", outcome.failures.len())))
    }
}

struct Outcome {
    passed: usize,
    failures: Vec<String>,
    dimensions: Dimensions,
}

impl Outcome {
    fn file(&mut self, name: &str, text: &str, rules: impl FnOnce(&TestFile) -> Result<Loaded, String>) {
        let parsed: TestFile = match serde_yaml_ng::from_str(text) {
            Ok(parsed) => parsed,
            Err(error) => return self.failures.push(format!("{name}: {error}")),
        };
        let loaded = match rules(&parsed) {
            Ok(loaded) => loaded,
            Err(message) => return self.failures.push(format!("{name}: {message}")),
        };
        if loaded.has_errors() {
            let faults: Vec<String> = loaded.faults.iter().map(ToString::to_string).collect();
            return self.failures.push(format!("{name}: {}", faults.join("\n")));
        }
        for test in &parsed.tests {
            self.test(name, test, &loaded.rules);
        }
    }

    fn test(&mut self, file: &str, test: &crate::rule_test::RuleTest, rules: &[CompiledRule]) {
        match test.run(rules, &self.dimensions) {
            Ok(differences) if differences.is_empty() => self.passed += 1,
            Ok(differences) => self.failures.push(format!("{file}: {}:\n  {}", test.name, differences.join("\n  "))),
            Err(message) => self.failures.push(format!("{file}: {}: {message}", test.name)),
        }
    }
}

fn compile(files: &[(&str, &str)]) -> Loaded {
    let mut loaded = Loaded::default();
    if let Ok(compiler) = Compiler::new() {
        compiler.load_files(files.iter().copied(), &mut loaded);
    }
    loaded
}

/// The name of the test file of a bundled one.
fn test_name(path: &str) -> String {
    format!("{}.test.yaml", path.strip_suffix(".sql").unwrap_or(path))
}

/// The rule files that a test file names, beside it, and the rules that it has itself.
fn load_beside(test: &Path, parsed: &TestFile, tables: &TableFlags) -> Result<Loaded, String> {
    let folder = test.parent().unwrap_or(Path::new("."));
    let paths: Vec<PathBuf> = parsed.rule_files.iter().map(|name| folder.join(name)).collect();
    if paths.is_empty() && parsed.rules.trim().is_empty() {
        return Err("rule_files: expected at least one, or rules".to_string());
    }
    let dimensions = tables.load().map_err(|failure| failure.message)?;
    let own = (!parsed.rules.trim().is_empty()).then(|| (test.display().to_string(), parsed.rules.clone()));
    rule_files::load_with(&paths, own, Bundled::None, &dimensions).map_err(|failure| failure.message)
}
