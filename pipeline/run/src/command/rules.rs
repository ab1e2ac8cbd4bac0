//! `tidewatch rules`: the rules of `up`, and what is to become of them while it runs.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::json;
use tidewatch_sql::{Dimensions, Engine, Level, suggestion};

use crate::command::import;
use crate::config::Config;
use crate::dimension_files;
use crate::failure::Failure;
use crate::output::{Format, format_or_default, print_objects};
use crate::rule_files::Bundled;
use crate::rule_watch::{load, own_rules, suspended, suspended_file};

/// What to do with rules.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidewatch rules                          every rule, its state and how it is evaluated\n  tidewatch rules add gpu_hot.sql           a file of rules, into the data folder\n  tidewatch rules suspend gpu_overheating   judged no more for now; its alerts stay as they are\n  tidewatch rules resume gpu_overheating\n  tidewatch rules drop gpu_hot              a rule that was added, by its name\n  tidewatch rules import rules.yml          rules of Prometheus, as SQL\n\nAn 'up' that runs sees it within five seconds, or at once on SIGHUP."
)]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// The rules that 'up' was given so: files or folders, repeatable.
    #[arg(long, global = true)]
    rules: Vec<PathBuf>,
    /// As 'up' was given it: the bundled rules of sql/pack too.
    #[arg(long, global = true)]
    all_rules: bool,
    /// How to print.
    #[arg(long, value_enum, global = true)]
    format: Option<Format>,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Every rule.
    List,
    /// Adds a file of rules.
    Add {
        /// The file.
        file: PathBuf,
    },
    /// Translates alerting rules of Prometheus into SQL.
    Import(import::Args),
    /// Drops rules that were added.
    Drop {
        /// Their names.
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Suspends rules.
    Suspend {
        /// Their names.
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Resumes rules.
    Resume {
        /// Their names.
        #[arg(required = true)]
        names: Vec<String>,
    },
}

/// Runs the command.
pub fn run(args: &Args, mut config: Config) -> Result<(), Failure> {
    config.rules_paths.extend(args.rules.iter().cloned());
    if args.all_rules {
        config.rules_bundled = Bundled::All;
    }
    let config = &config;
    let dimensions = dimension_files::load(&config.tables_files).map_err(Failure::usage)?;
    match &args.what {
        None | Some(What::List) => list(config, &dimensions, args.format),
        Some(What::Add { file }) => add(config, &dimensions, file),
        Some(What::Import(wanted)) => import::run(wanted),
        Some(What::Drop { names }) => names.iter().try_for_each(|name| drop_rule(config, &dimensions, name)),
        Some(What::Suspend { names }) => {
            let known: BTreeSet<String> =
                load(config, &dimensions)?.rules.into_iter().map(|found| found.rule.name).collect();
            if let Some(unknown) = names.iter().find(|name| !known.contains(*name)) {
                let near = suggestion(unknown, known.iter().map(String::as_str));
                return Err(Failure::no(format!("there is no rule '{unknown}'{near}")));
            }
            let mut all = suspended(config)?;
            all.extend(names.iter().cloned());
            write_suspended(config, &all)
        }
        Some(What::Resume { names }) => {
            let mut all = suspended(config)?;
            if let Some(other) = names.iter().find(|name| !all.contains(*name)) {
                return Err(Failure::no(format!("'{other}' is not suspended")));
            }
            all.retain(|name| !names.contains(name));
            write_suspended(config, &all)
        }
    }
}

fn list(config: &Config, dimensions: &Dimensions, format: Option<Format>) -> Result<(), Failure> {
    let loaded = load(config, dimensions)?;
    loaded.faults.iter().filter(|fault| fault.level == Level::Error).for_each(|fault| eprintln!("{fault}"));
    let suspended = suspended(config)?;
    let engine = Engine::new(loaded.rules.clone()).map_err(Failure::no)?;
    let strategies: Vec<(String, &str)> = engine.explain().map(|found| (found.rule, found.strategy)).collect();
    let objects = loaded.rules.iter().map(|compiled| {
        let rule = &compiled.rule;
        let strategy = strategies.iter().find(|(name, _)| *name == rule.name).map_or("", |(_, strategy)| strategy);
        let fields = [
            ("rule", json!(rule.name)),
            ("state", json!(if suspended.contains(&rule.name) { "suspended" } else { "active" })),
            ("severity", json!(rule.options.severity)),
            ("tables", json!(rule.tables().collect::<Vec<_>>().join(", "))),
            ("strategy", json!(strategy)),
            ("source", json!(rule.source)),
        ];
        fields.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
    });
    print_objects(format_or_default(format), &objects.collect::<Vec<_>>())
}

fn add(config: &Config, dimensions: &Dimensions, file: &PathBuf) -> Result<(), Failure> {
    let wrong = |error: std::io::Error| Failure::usage(format!("{}: {error}", file.display()));
    let text = std::fs::read_to_string(file).map_err(wrong)?;
    let name = file.file_name().filter(|name| name.to_string_lossy().ends_with(".sql"));
    let name = name.ok_or_else(|| Failure::usage(format!("{}: expected a file that ends in .sql", file.display())))?;
    let before = load(config, dimensions)?;
    // Beside what is there: a name that is taken is an error, and so is a view that is not there.
    let mut paths = config.rules_paths.clone();
    paths.extend(
        crate::rule_files::sql_files(&[own_rules(config)])
            .unwrap_or_default()
            .into_iter()
            .filter(|known| known.file_name() != Some(name)),
    );
    paths.push(file.clone());
    let loaded = crate::rule_files::load(&paths, config.rules_bundled, dimensions)?;
    let known: Vec<String> = before.faults.iter().map(ToString::to_string).collect();
    let errors = loaded.faults.iter().filter(|fault| fault.level == Level::Error).map(ToString::to_string);
    let errors: Vec<String> = errors.filter(|error| !known.contains(error)).collect();
    if !errors.is_empty() {
        return Err(Failure::no(errors.join("\n")));
    }
    let folder = own_rules(config);
    std::fs::create_dir_all(&folder).map_err(Failure::usage)?;
    put(&folder.join(name), &text)?;
    let count = loaded.rules.len() - before.rules.len().min(loaded.rules.len());
    println!("added {}: {count} more rules", folder.join(name).display());
    Ok(())
}

fn drop_rule(config: &Config, dimensions: &Dimensions, name: &str) -> Result<(), Failure> {
    let folder = own_rules(config).display().to_string();
    let loaded = load(config, dimensions)?;
    let file_of = |source: &str| source.rsplitn(3, ':').last().map(str::to_string);
    let Some(found) = loaded.rules.iter().find(|compiled| compiled.rule.name == name) else {
        let near = suggestion(name, loaded.rules.iter().map(|compiled| compiled.rule.name.as_str()));
        return Err(Failure::no(format!("there is no rule '{name}'{near}")));
    };
    let file = file_of(&found.rule.source).filter(|file| file.starts_with(&folder));
    let Some(file) = file else {
        let message = format!("'{name}' was not added here: take it out of {}, or suspend it", found.rule.source);
        return Err(Failure::no(message));
    };
    let others = loaded.rules.iter().filter(|other| file_of(&other.rule.source).as_ref() == Some(&file)).count() - 1;
    if others > 0 {
        return Err(Failure::no(format!("{file} has {others} other rules: take '{name}' out of it, or suspend it")));
    }
    let text = std::fs::read_to_string(&file).map_err(Failure::usage)?;
    if text.to_lowercase().matches("create ").count() > 1 {
        return Err(Failure::no(format!("{file} has other statements: take '{name}' out of it, or suspend it")));
    }
    std::fs::remove_file(&file).map_err(Failure::usage)?;
    println!("dropped {name}: {file} is gone");
    Ok(())
}

fn write_suspended(config: &Config, all: &BTreeSet<String>) -> Result<(), Failure> {
    let file = suspended_file(config);
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).map_err(Failure::usage)?;
    }
    let text: String = all.iter().map(|name| format!("{name}\n")).collect();
    put(&file, &text)
}

/// Whoever reads sees the old text or the new one.
fn put(file: &PathBuf, text: &str) -> Result<(), Failure> {
    let staged = file.with_extension("new");
    let wrong = |error: std::io::Error| Failure::usage(format!("{}: {error}", file.display()));
    std::fs::write(&staged, text).map_err(wrong)?;
    std::fs::rename(&staged, file).map_err(wrong)
}
