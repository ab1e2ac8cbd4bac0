//! `tidewatch check`: are these rules good?

use std::path::PathBuf;

use tidewatch_sql::Level;

use crate::dimension_files::TableFlags;
use crate::failure::Failure;
use crate::rule_files;

/// Rules to look at.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidewatch check                    the bundled rules\n  tidewatch check rules/             every .sql file below a folder\n  tidewatch check rules/gpu_hot.sql\n\nExit code: 0 without errors, 1 with errors, 2 when a path can't be read."
)]
pub struct Args {
    /// Files or folders; the bundled rules when none is given.
    paths: Vec<PathBuf>,
    #[command(flatten)]
    tables: TableFlags,
    /// Treat warnings as errors.
    #[arg(long)]
    strict: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let loaded = rule_files::load(&args.paths, args.paths.is_empty(), &args.tables.load()?)?;
    let mut lines: Vec<String> =
        loaded.faults.iter().filter(|fault| fault.level != Level::Note).map(ToString::to_string).collect();
    lines.extend(loaded.faults.iter().filter(|fault| fault.level == Level::Note).map(ToString::to_string));
    let count = |level| loaded.faults.iter().filter(|fault| fault.level == level).count();
    let (errors, warnings) = (count(Level::Error), count(Level::Warning));
    lines.push(format!("{} rules are good, {errors} errors, {warnings} warnings", loaded.rules.len()));
    let text = lines.join("\n");
    if errors > 0 || (args.strict && warnings > 0) {
        return Err(Failure::no(text));
    }
    println!("{text}");
    Ok(())
}
