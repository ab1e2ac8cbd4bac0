//! `tidewatch silence`: silences of a running Tidewatch.

use serde_json::{Map, Value, json};
use tidewatch_flow::alerting::Matcher;
use tidewatch_model::ports::Clock;
use tidewatch_model::time::SystemClock;
use tidewatch_model::{Span, Timestamp};

use super::alerts::parse;
use crate::client::{ServerFlags, query};
use crate::config::Config;
use crate::failure::Failure;
use crate::output::{Format, format_or_default, print_objects};

/// Silences: alerts that match are told to nobody until their end.
#[derive(Debug, clap::Subcommand)]
#[command(
    after_help = "Examples:\n  tidewatch silence add host=gpu-017 --for 2h --comment 'new power supply'\n  tidewatch silence list\n  tidewatch silence expire 8d0f0a3e-5a8f-4a53-9b8c-4f9a3c1f2f10"
)]
pub enum Command {
    /// Adds one, and prints its id.
    Add {
        /// Matchers as amtool has them: name=value, !=, =~, !~. All must match.
        #[arg(required = true)]
        matchers: Vec<String>,
        /// How long, from its start.
        #[arg(long = "for", value_name = "DURATION", default_value = "1h")]
        lasts: Span,
        /// When it begins; now, without it.
        #[arg(long, value_name = "TIME")]
        start: Option<Timestamp>,
        /// Why: the next one on call reads it.
        #[arg(long)]
        comment: String,
        /// Who; the system's user, without it.
        #[arg(long, env = "USER", default_value = "unknown")]
        author: String,
        #[command(flatten)]
        server: ServerFlags,
    },
    /// Lists them.
    List {
        /// Only those with such matchers.
        matchers: Vec<String>,
        /// Those that are over, too.
        #[arg(long)]
        expired: bool,
        /// How they are printed.
        #[arg(long, value_enum)]
        format: Option<Format>,
        #[command(flatten)]
        server: ServerFlags,
    },
    /// Ends them now.
    Expire {
        /// Their ids.
        #[arg(required = true)]
        ids: Vec<String>,
        #[command(flatten)]
        server: ServerFlags,
    },
}

/// Runs the command.
pub fn run(command: &Command, configuration: impl FnOnce() -> Result<Config, Failure>) -> Result<(), Failure> {
    match command {
        Command::Add { matchers, lasts, start, comment, author, server } => {
            let matchers = parse(matchers)?;
            let start = start.unwrap_or_else(|| SystemClock.now());
            let silence = json!({
                "matchers": matchers, "startsAt": start, "endsAt": start.saturating_add(*lasts), "createdBy": author, "comment": comment,
            });
            let made = server.server(configuration)?.ask("POST", "/api/v2/silences", Some(&silence))?;
            println!("{}", made["silenceID"].as_str().unwrap_or_default());
            Ok(())
        }
        Command::List { matchers, expired, format, server } => {
            let texts: Vec<String> = parse(matchers)?.iter().map(ToString::to_string).collect();
            let pairs: Vec<(&str, &str)> = texts.iter().map(|text| ("filter", text.as_str())).collect();
            let found =
                server.server(configuration)?.ask("GET", &format!("/api/v2/silences{}", query(&pairs)), None)?;
            let wanted = |silence: &&Value| *expired || silence["status"]["state"] != "expired";
            let rows: Vec<Map<String, Value>> =
                found.as_array().into_iter().flatten().filter(wanted).map(row).collect();
            print_objects(format_or_default(*format), &rows)
        }
        Command::Expire { ids, server } => {
            let server = server.server(configuration)?;
            ids.iter().try_for_each(|id| server.ask("DELETE", &format!("/api/v2/silence/{id}"), None).map(drop))
        }
    }
}

fn row(silence: &Value) -> Map<String, Value> {
    let matchers: Vec<Matcher> = serde_json::from_value(silence["matchers"].clone()).unwrap_or_default();
    let matchers: Vec<String> = matchers.iter().map(ToString::to_string).collect();
    let of = |name: &str| silence[name].clone();
    Map::from_iter([
        ("id".to_string(), of("id")),
        ("state".to_string(), silence["status"]["state"].clone()),
        ("matchers".to_string(), Value::String(matchers.join(" "))),
        ("starts_at".to_string(), of("startsAt")),
        ("ends_at".to_string(), of("endsAt")),
        ("created_by".to_string(), of("createdBy")),
        ("comment".to_string(), of("comment")),
    ])
}
