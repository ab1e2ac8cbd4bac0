//! `tidewatch check`: are these rules good?

use std::path::{Path, PathBuf};

use tidewatch_sql::Level;

use crate::alerting_file;
use crate::dimension_files::TableFlags;
use crate::failure::Failure;
use crate::rule_files::{self, Bundled};

/// Rules to look at.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidewatch check                    the bundled rules\n  tidewatch check rules/             every .sql file below a folder\n  tidewatch check rules/gpu_hot.sql\n  tidewatch check alertmanager.yml   routes and receivers: what is understood, and what is left out\n\nExit code: 0 without errors, 1 with errors, 2 when a path can't be read."
)]
pub struct Args {
    /// Files or folders of rules; the bundled rules when none is given. A file that ends in .yml or .yaml is routes and receivers.
    paths: Vec<PathBuf>,
    /// The bundled rules of sql/pack too.
    #[arg(long)]
    all_rules: bool,
    #[command(flatten)]
    tables: TableFlags,
    /// Treat warnings as errors.
    #[arg(long)]
    strict: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let is_routes = |path: &PathBuf| path.extension().is_some_and(|end| end == "yml" || end == "yaml");
    let (routes, rules): (Vec<PathBuf>, Vec<PathBuf>) = args.paths.iter().cloned().partition(is_routes);
    let texts = routes.iter().map(|path| check_routes(path, args.strict)).collect::<Result<Vec<_>, _>>()?;
    texts.iter().for_each(|text| println!("{text}"));
    if !routes.is_empty() && rules.is_empty() {
        return Ok(());
    }
    check_rules(args, &rules)
}

/// Says what a file of routes and receivers means to us.
fn check_routes(path: &Path, strict: bool) -> Result<String, Failure> {
    let (file, faults) = alerting_file::load(path).map_err(Failure::usage)?;
    let mut lines: Vec<String> = faults.iter().map(|fault| format!("{}:{fault}", path.display())).collect();
    let warnings = faults.iter().filter(|fault| fault.level == Level::Warning).count();
    let errors = faults.len() - warnings;
    if let Some(file) = &file {
        let routes: usize = file.policy.trees.iter().map(|tree| tree.all().len()).sum();
        lines.push(format!(
            "{routes} routes, {} receivers with {} targets, {} inhibition rules, {} time intervals",
            file.policy.receivers.len(),
            file.channels.len(),
            file.policy.inhibit_rules.len(),
            file.policy.intervals.len()
        ));
    }
    lines.push(format!("{}: {errors} errors, {warnings} warnings", path.display()));
    if errors > 0 || (strict && warnings > 0) { Err(Failure::no(lines.join("\n"))) } else { Ok(lines.join("\n")) }
}

fn check_rules(args: &Args, paths: &[PathBuf]) -> Result<(), Failure> {
    let loaded = rule_files::load(paths, Bundled::unless(paths, args.all_rules), &args.tables.load()?)?;
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
