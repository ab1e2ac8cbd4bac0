//! `tidewatch render`: what receivers would get.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use tidewatch_log::ScriptedLog;
use tidewatch_model::NoticeStatus;
use tidewatch_model::ports::Log;
use tidewatch_notifiers::sample;
use tidewatch_sql::suggestion;

use crate::alerting_file;
use crate::failure::Failure;

/// Shows what each target of a file would get; nothing is sent.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidewatch render alerting.yml\n  tidewatch render alerting.yml --target pager --resolved\n  tidewatch render alerting.yml --label team=gpu --label host=n7 --severity warning\n\nExit code: 0; 2 when the file has errors or no such target."
)]
pub struct Args {
    /// Routes and receivers.
    file: PathBuf,
    /// Only these targets; repeatable.
    #[arg(long)]
    target: Vec<String>,
    /// A notice that says that all is over.
    #[arg(long)]
    resolved: bool,
    /// A label of the alert that is shown, name=value; repeatable.
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// Its severity.
    #[arg(long, default_value = "critical")]
    severity: String,
    /// Its summary.
    #[arg(long)]
    summary: Option<String>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let (file, faults) = alerting_file::load(&args.file).map_err(Failure::usage)?;
    let lines: Vec<String> = faults.iter().map(|fault| format!("{}:{fault}", args.file.display())).collect();
    let Some(file) = file else { return Err(Failure::usage(lines.join("\n"))) };
    lines.iter().for_each(|line| eprintln!("{line}"));
    let known: Vec<&str> = file.channels.keys().map(String::as_str).collect();
    if let Some(unknown) = args.target.iter().find(|target| !known.contains(&target.as_str())) {
        let near = suggestion(unknown, known.iter().copied());
        return Err(Failure::usage(format!("no target is called '{unknown}'{near}: there are {}", known.join(", "))));
    }
    let mut notice = sample(if args.resolved { NoticeStatus::Resolved } else { NoticeStatus::Firing });
    for alert in &mut notice.alerts {
        alert.severity = args.severity.parse().map_err(|error| Failure::usage(format!("--severity: {error}")))?;
        for pair in &args.label {
            let wrong = || Failure::usage(format!("--label {pair}: expected name=value"));
            let (name, value) = pair.split_once('=').ok_or_else(wrong)?;
            alert.labels.insert(name.to_string(), value.to_string());
        }
        if let Some(summary) = &args.summary {
            alert.annotations.insert("summary".to_string(), summary.clone());
        }
        notice.group_labels.clone_from(&alert.labels);
    }
    // Nothing is sent, so nothing is written to it.
    let log: Arc<dyn Log> = Arc::new(ScriptedLog::default());
    for (target, channel) in file.channels {
        if args.target.is_empty() || args.target.contains(&target) {
            let notifier = channel.notifier(&target, "http://127.0.0.1:7575", &log).map_err(Failure::usage)?;
            writeln!(std::io::stdout(), "=== {target}\n{}", notifier.preview(&notice).trim_end())
                .map_err(Failure::output)?;
        }
    }
    Ok(())
}
