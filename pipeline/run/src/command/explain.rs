//! `tidewatch explain`: how rules are evaluated, and what they share.

use std::io::{ErrorKind, IsTerminal, Write, stdout};
use std::path::PathBuf;

use tidewatch_sql::{Engine, Level};

use crate::dimension_files::TableFlags;
use crate::failure::Failure;
use crate::rule_files::{self, Bundled};

/// Rules to explain.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidewatch explain                        the bundled rules\n  tidewatch explain rules/ --rule gpu_hot    one rule among all of a folder\n  tidewatch explain rules/ --json | jq .strategy\n\nA terminal gets text, a pipe one JSON object a line. Rules share with those that are given with them.\nExit code: 0 explained, 1 a rule has errors or is not there, 2 a path can't be read."
)]
pub struct Args {
    /// Files or folders; the bundled rules when none is given.
    paths: Vec<PathBuf>,
    /// The bundled rules of sql/pack too.
    #[arg(long)]
    all_rules: bool,
    #[command(flatten)]
    tables: TableFlags,
    /// Only this rule.
    #[arg(long)]
    rule: Option<String>,
    /// JSON in a terminal too.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let loaded = rule_files::load(&args.paths, Bundled::unless(&args.paths, args.all_rules), &args.tables.load()?)?;
    let errors: Vec<String> =
        loaded.faults.iter().filter(|fault| fault.level == Level::Error).map(ToString::to_string).collect();
    if !errors.is_empty() {
        return Err(Failure::no(errors.join("\n")));
    }
    let engine = Engine::new(loaded.rules).map_err(|error| Failure::no(error.to_string()))?;
    let is_wanted = |name: &str| args.rule.as_ref().is_none_or(|rule| rule == name);
    let mut lines = Vec::new();
    for explanation in engine.explain().filter(|explanation| is_wanted(&explanation.rule)) {
        if args.json || !stdout().is_terminal() {
            let text = serde_json::to_string(&explanation).map_err(|error| Failure::no(error.to_string()))?;
            lines.push(text);
        } else {
            lines.push(explanation.to_string());
        }
    }
    print(&lines)?;
    match (&args.rule, lines.len()) {
        (Some(rule), 0) => Err(Failure::no(format!("there is no rule '{rule}'"))),
        _ => Ok(()),
    }
}

/// A reader that has seen enough is no fault.
fn print(lines: &[String]) -> Result<(), Failure> {
    let mut out = stdout().lock();
    match lines.iter().try_for_each(|line| writeln!(out, "{line}")) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::no(error)),
        _ => Ok(()),
    }
}
