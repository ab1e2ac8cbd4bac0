//! `tidewatch alerts`: what fires in a running Tidewatch, what happened to it, and who knows of it.

use serde_json::{Map, Value, json};
use tidewatch_flow::alerting::Matcher;
use tidewatch_model::Span;
use tidewatch_model::ports::Clock;
use tidewatch_model::time::SystemClock;

use crate::client::{Server, ServerFlags, query};
use crate::config::Config;
use crate::failure::Failure;
use crate::output::{Format, format_or_default, print_objects};

/// Alerts that fire now.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  tidewatch alerts\n  tidewatch alerts severity=critical 'host=~gpu-0.*'\n  tidewatch alerts --silenced --format json\n  tidewatch alerts show 214c409b0e9b6c8f\n  tidewatch alerts ack host=gpu-017 --comment 'on it' --for 2h\n\nExit code: 0; 1 when it can't be asked or nothing matches, 2 for a matcher that is none."
)]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    list: List,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// List alerts that fire; without a word it is the same.
    List(List),
    /// One alert, and what happened to it: its changes, acks, who was told.
    Show {
        /// Its fingerprint, or matchers that one alert matches.
        #[arg(required = true)]
        which: Vec<String>,
        /// How it is printed.
        #[arg(long, value_enum)]
        format: Option<Format>,
        #[command(flatten)]
        server: ServerFlags,
    },
    /// Say that you know of alerts: they are not repeated and not escalated.
    Ack {
        /// Fingerprints, or matchers that all must match.
        #[arg(required = true)]
        which: Vec<String>,
        /// How long; until the alert is over, without it.
        #[arg(long = "for", value_name = "DURATION")]
        lasts: Option<Span>,
        /// What you do about it: the next one on call reads it.
        #[arg(long, default_value = "")]
        comment: String,
        /// Who; the system's user, without it. With a token, its name is taken.
        #[arg(long, env = "USER", default_value = "unknown")]
        author: String,
        #[command(flatten)]
        server: ServerFlags,
    },
    /// Take an ack back.
    Unack {
        /// Fingerprints, or matchers that all must match.
        #[arg(required = true)]
        which: Vec<String>,
        #[command(flatten)]
        server: ServerFlags,
    },
}

#[derive(Debug, clap::Args)]
struct List {
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
pub fn run(args: &Args, configuration: impl FnOnce() -> Result<Config, Failure>) -> Result<(), Failure> {
    match &args.what {
        None => list(&args.list, &args.list.server.server(configuration)?),
        Some(What::List(args)) => list(args, &args.server.server(configuration)?),
        Some(What::Show { which, format, server }) => {
            let server = server.server(configuration)?;
            let found = fingerprints(&server, which)?;
            let [fingerprint] = found.as_slice() else {
                return Err(Failure::no(format!("{} alerts match: expected one", found.len())));
            };
            let answer = server.ask("GET", &format!("/api/v1/alerts/{fingerprint}"), None)?;
            show(&answer["data"], format_or_default(*format))
        }
        Some(What::Ack { which, lasts, comment, author, server }) => {
            let until = lasts.map(|lasts| SystemClock.now().saturating_add(lasts));
            let ack = json!({"ackedBy": author, "comment": comment, "until": until});
            let server = server.server(configuration)?;
            for fingerprint in fingerprints(&server, which)? {
                let answer = server.ask("POST", &format!("/api/v1/alerts/{fingerprint}/ack"), Some(&ack))?;
                let by = answer["data"]["ackedBy"].as_str().unwrap_or_default();
                println!("{fingerprint} acknowledged by {by}");
            }
            Ok(())
        }
        Some(What::Unack { which, server }) => {
            let server = server.server(configuration)?;
            fingerprints(&server, which)?.iter().try_for_each(|fingerprint| {
                server.ask("DELETE", &format!("/api/v1/alerts/{fingerprint}/ack"), None).map(drop)
            })
        }
    }
}

/// The alerts that are meant: fingerprints as they are, and what fires and matches.
fn fingerprints(server: &Server, which: &[String]) -> Result<Vec<String>, Failure> {
    let is_one = |text: &String| text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if which.iter().all(is_one) {
        return Ok(which.to_vec());
    }
    let found = firing(server, which, true, true)?;
    let fingerprints = found.iter().filter_map(|alert| alert["fingerprint"].as_str().map(str::to_string));
    let found: Vec<String> = fingerprints.collect();
    if found.is_empty() { Err(Failure::no("no alert that fires matches")) } else { Ok(found) }
}

fn firing(server: &Server, matchers: &[String], silenced: bool, inhibited: bool) -> Result<Vec<Value>, Failure> {
    let texts: Vec<String> = parse(matchers)?.iter().map(ToString::to_string).collect();
    let mut pairs: Vec<(&str, &str)> = texts.iter().map(|text| ("filter", text.as_str())).collect();
    let flag = |wanted: bool| if wanted { "true" } else { "false" };
    pairs.extend([("silenced", flag(silenced)), ("inhibited", flag(inhibited))]);
    let alerts = server.ask("GET", &format!("/api/v2/alerts{}", query(&pairs)), None)?;
    Ok(alerts.as_array().cloned().unwrap_or_default())
}

fn list(args: &List, server: &Server) -> Result<(), Failure> {
    let alerts = firing(server, &args.matchers, args.silenced, args.inhibited)?;
    let acks = server.ask("GET", "/api/v1/acks", None)?;
    let acked_by = |alert: &Value| {
        let mut acks = acks["data"].as_array().into_iter().flatten();
        let found = acks.find(|ack| ack["fingerprint"] == alert["fingerprint"] && ack["firedAt"] == alert["startsAt"]);
        found.map(|ack| ack["ackedBy"].clone()).unwrap_or_default()
    };
    let rows: Vec<Map<String, Value>> = alerts.iter().map(|alert| row(alert, acked_by(alert))).collect();
    print_objects(format_or_default(args.format), &rows)
}

/// Reads matchers of the command line.
pub fn parse(texts: &[String]) -> Result<Vec<Matcher>, Failure> {
    texts.iter().map(|text| text.parse::<Matcher>().map_err(Failure::usage)).collect()
}

fn row(alert: &Value, acked_by: Value) -> Map<String, Value> {
    let label = |name: &str| alert["labels"][name].clone();
    Map::from_iter([
        ("fingerprint".to_string(), alert["fingerprint"].clone()),
        ("alertname".to_string(), label("alertname")),
        ("severity".to_string(), label("severity")),
        ("labels".to_string(), Value::String(other_labels(&alert["labels"]))),
        ("since".to_string(), alert["startsAt"].clone()),
        ("state".to_string(), alert["status"]["state"].clone()),
        ("acked_by".to_string(), acked_by),
        ("summary".to_string(), alert["annotations"]["summary"].clone()),
    ])
}

fn other_labels(labels: &Value) -> String {
    let others = labels.as_object().into_iter().flatten();
    let others: Vec<String> = others
        .filter(|(name, _)| !["alertname", "severity"].contains(&name.as_str()))
        .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
        .collect();
    others.join(" ")
}

/// An alert with its timeline: for people a head and a table, else the timeline's rows.
fn show(data: &Value, format: Format) -> Result<(), Failure> {
    let timeline: Vec<Map<String, Value>> = data["timeline"].as_array().into_iter().flatten().map(entry).collect();
    let alert = &data["alert"];
    if format == Format::Table {
        match alert.is_null() {
            true => println!("{}: it does not fire", data["fingerprint"].as_str().unwrap_or_default()),
            false => {
                let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_string);
                let labels = &alert["labels"];
                println!("{} {} {}", text(&labels["alertname"]), text(&labels["severity"]), other_labels(labels));
                println!("{} since {}", text(&alert["state"]), text(&alert["activeAt"]));
                for (name, value) in alert["annotations"].as_object().into_iter().flatten() {
                    println!("{name}: {}", text(value));
                }
                if let Some(by) = alert["ack"]["ackedBy"].as_str() {
                    println!("acknowledged by {by}: {}", text(&alert["ack"]["comment"]));
                }
            }
        }
        println!();
    }
    print_objects(format, &timeline)
}

/// A line of the timeline.
fn entry(entry: &Value) -> Map<String, Value> {
    let text = |name: &str| entry[name].as_str().unwrap_or_default();
    let (what, detail) = if text("kind") == "notice" {
        let error = if text("error").is_empty() { String::new() } else { format!(": {}", text("error")) };
        (format!("{} {}", text("receiver"), text("outcome")), format!("{}, {}{error}", text("status"), text("reason")))
    } else {
        let values = entry["values"].as_object().into_iter().flatten();
        let values: Vec<String> =
            values.map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default())).collect();
        (format!("{} > {}", text("from_state"), text("to_state")), format!("{} {}", text("reason"), values.join(" ")))
    };
    Map::from_iter([
        ("ts".to_string(), entry["ts"].clone()),
        ("kind".to_string(), entry["kind"].clone()),
        ("what".to_string(), Value::String(what)),
        ("detail".to_string(), Value::String(detail.trim_end().to_string())),
    ])
}
