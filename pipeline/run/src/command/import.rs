//! `tidewatch rules import`: alerting rules of Prometheus as rules of ours.

use std::path::{Path, PathBuf};

use tidewatch_promql::{Imported, ImportedRule, import_all};

use crate::failure::Failure;

/// What to translate, and where to.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidewatch rules import rules.yml                     SQL on standard output\n  tidewatch rules import rules/*.yml --out imported/   a file for each rule\n  tidewatch rules import rules.yml --out imported/ && tidewatch check imported/\n\nWhat has no translation is listed with file, line, column, rule and reason; docs/promql.md says what is\ntranslated how. Recording rules of the files given together are known to each other's rules.\n\nExit code: 0 all are translated, 1 some are refused, 2 a file can't be read, or a file of rules was changed since."
)]
pub struct Args {
    /// Rule files of Prometheus (YAML), or PrometheusRule objects.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// A folder for one file of SQL for each rule.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Overwrite files in it that are other than what would be written.
    #[arg(long, requires = "out")]
    force: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let mut texts = Vec::new();
    for file in &args.files {
        let name = file.display().to_string();
        let text = std::fs::read_to_string(file).map_err(|error| Failure::usage(format!("{name}: {error}")))?;
        texts.push((name, text));
    }
    let imported = import_all(texts.iter().map(|(name, text)| (name.as_str(), text.as_str())));
    match &args.out {
        Some(folder) => write(folder, &imported.rules, args.force)?,
        None => imported.rules.iter().for_each(|rule| println!("{}", rule.sql)),
    }
    outcome(&imported)
}

fn outcome(imported: &Imported) -> Result<(), Failure> {
    imported.refused.iter().for_each(|refusal| eprintln!("{refusal}"));
    let (translated, refused) = (imported.rules.len(), imported.refused.len());
    let message = format!("{translated} rules are translated, {refused} refused");
    // Something without a rule's name is no file of rules.
    let unusable = translated == 0 && imported.refused.iter().any(|refusal| refusal.rule.is_empty());
    match refused {
        0 => {
            eprintln!("{message}");
            Ok(())
        }
        _ if unusable => Err(Failure::usage(message)),
        _ => Err(Failure::no(message)),
    }
}

/// One file for each rule: none is written where one would take a change away.
fn write(folder: &Path, rules: &[ImportedRule], force: bool) -> Result<(), Failure> {
    std::fs::create_dir_all(folder).map_err(|error| Failure::usage(format!("{}: {error}", folder.display())))?;
    let file_of = |rule: &ImportedRule| folder.join(format!("{}.sql", rule.name));
    let mut changed = Vec::new();
    for rule in rules.iter().filter(|_| !force) {
        let file = file_of(rule);
        match std::fs::read_to_string(&file) {
            Ok(text) if text == rule.sql => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Ok(_) => changed
                .push(format!("{}: it is other than what would be written; --force overwrites it", file.display())),
            Err(error) => changed.push(format!("{}: {error}", file.display())),
        }
    }
    if !changed.is_empty() {
        return Err(Failure::usage(changed.join("\n")));
    }
    for rule in rules {
        let file = file_of(rule);
        std::fs::write(&file, &rule.sql).map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?;
    }
    Ok(())
}
