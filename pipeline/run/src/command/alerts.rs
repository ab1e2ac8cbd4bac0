//! `tidewatch alerts`: what fires in a running Tidewatch.

use serde_json::{Map, Value};
use tidewatch_flow::alerting::Matcher;

use crate::client::{ServerFlags, query};
use crate::failure::Failure;
use crate::output::{Format, format_or_default, print_objects};

/// Alerts that fire now.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidewatch alerts\n  tidewatch alerts severity=critical 'host=~gpu-0.*'\n  tidewatch alerts --silenced --format json\n\nExit code: 0; 1 when it can't be asked, 2 for a matcher that is none."
)]
pub struct Args {
    /// Matchers as amtool has them: name=value, !=, =~, !~. All must match.
    matchers: Vec<String>,
    /// Those that silences mute, too.
    #[arg(long)]
    silenced: bool,
    /// Those that other alerts inhibit, too.
    #[arg(long)]
    inhibited: bool,
    /// How they are printed.
    #[arg(long, value_enum)]
    format: Option<Format>,
    #[command(flatten)]
    server: ServerFlags,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let matchers = parse(&args.matchers)?;
    let texts: Vec<String> = matchers.iter().map(ToString::to_string).collect();
    let mut pairs: Vec<(&str, &str)> = texts.iter().map(|text| ("filter", text.as_str())).collect();
    let flag = |wanted: bool| if wanted { "true" } else { "false" };
    pairs.extend([("silenced", flag(args.silenced)), ("inhibited", flag(args.inhibited))]);
    let alerts = args.server.ask("GET", &format!("/api/v2/alerts{}", query(&pairs)), None)?;
    let rows: Vec<Map<String, Value>> = alerts.as_array().into_iter().flatten().map(row).collect();
    print_objects(format_or_default(args.format), &rows)
}

/// Reads matchers of the command line.
pub fn parse(texts: &[String]) -> Result<Vec<Matcher>, Failure> {
    texts.iter().map(|text| text.parse::<Matcher>().map_err(Failure::usage)).collect()
}

fn row(alert: &Value) -> Map<String, Value> {
    let label = |name: &str| alert["labels"][name].clone();
    let others = alert["labels"].as_object().into_iter().flatten();
    let others: Vec<String> = others
        .filter(|(name, _)| !["alertname", "severity"].contains(&name.as_str()))
        .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
        .collect();
    Map::from_iter([
        ("alertname".to_string(), label("alertname")),
        ("severity".to_string(), label("severity")),
        ("labels".to_string(), Value::String(others.join(" "))),
        ("since".to_string(), alert["startsAt"].clone()),
        ("state".to_string(), alert["status"]["state"].clone()),
        ("summary".to_string(), alert["annotations"]["summary"].clone()),
    ])
}
