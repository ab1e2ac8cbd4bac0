//! Whom `up` tells, and who may ask it: what the configuration and the file of routes say, put together.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use tidewatch_flow::alerting::{Policy, Target};
use tidewatch_model::Span;
use tidewatch_model::ports::{Log, Notify};
use tidewatch_notifiers::{TerminalNotifier, WebhookNotifier};
use tidewatch_serve::{Access, Tls};

use super::up::say;
use crate::alerting_file::{self, AlertingFile, Alertmanager};
use crate::config::{Config, redact};
use crate::failure::Failure;
use crate::output::colour;
use crate::screen::RecentLines;

/// Whom to tell.
pub(super) struct Told {
    pub(super) policy: Policy,
    pub(super) receivers: Vec<Arc<dyn Notify>>,
    pub(super) alertmanagers: Vec<Alertmanager>,
    /// Who gets heartbeats, and how often.
    pub(super) heartbeat: (Vec<Arc<dyn Notify>>, Span),
}

/// Where people reach this Tidewatch.
pub(super) fn external_url(config: &Config) -> String {
    let scheme = if config.http_tls_cert_file.is_some() { "https" } else { "http" };
    format!("{scheme}://{}", config.http_address)
}

/// The terminal and the flag's webhook of everything at once, and whom the file names as it says.
pub(super) fn told(
    config: &Config,
    log: &Arc<dyn Log>,
    on_screen: bool,
    recent: &RecentLines,
) -> Result<Told, Failure> {
    let out: Box<dyn Write + Send> = if on_screen { Box::new(recent.clone()) } else { Box::new(std::io::stdout()) };
    let with_colour = colour(on_screen);
    let mut receivers: Vec<Arc<dyn Notify>> = vec![Arc::new(TerminalNotifier::new(out, with_colour))];
    let external = external_url(config);
    let mut heartbeat: (Vec<Arc<dyn Notify>>, Span) = (vec![], config.heartbeat_interval);
    if let Some(url) = &config.heartbeat_url {
        heartbeat.0.push(Arc::new(WebhookNotifier::new("heartbeat", url, &external)));
    }
    let mut alertmanagers: Vec<Alertmanager> =
        config.alerting_alertmanagers.iter().map(|url| Alertmanager::at(url)).collect();
    if let Some(url) = &config.webhook_url {
        receivers.push(Arc::new(WebhookNotifier::new("webhook", url, &external)));
        say(on_screen, &format!("tidewatch: alerts go to {}", redact(url)));
    }
    let targets = receivers.iter().map(|notify| Target { name: notify.target().to_string(), send_resolved: true });
    let mut policy = Policy::built_in(targets.collect());
    if let Some(path) = &config.alerting_file {
        let (file, lines) = routes(path)?;
        lines.iter().for_each(|line| eprintln!("{line}"));
        say(
            on_screen,
            &format!("tidewatch: alerts are routed by {} to {} targets", path.display(), file.channels.len()),
        );
        let taken = |name: &str| receivers.iter().any(|known| known.target() == name);
        if let Some(name) = file.channels.keys().find(|name| taken(name)) {
            let message = format!(
                "{}: a receiver is called '{name}', and so is one of ours: expected another name",
                path.display()
            );
            return Err(Failure::usage(message));
        }
        policy = policy.beside(file.policy);
        alertmanagers.extend(file.alertmanagers);
        let switch: Vec<String> = match &file.heartbeat {
            Some((receiver, interval)) => {
                heartbeat.1 = *interval;
                let targets = policy.receivers.get(receiver).into_iter().flatten();
                targets.map(|target| target.name.clone()).collect()
            }
            None => vec![],
        };
        for (target, channel) in file.channels {
            let notifier = channel.notifier(&target, &external, log).map_err(Failure::usage)?;
            heartbeat.0.extend(switch.contains(&target).then(|| notifier.clone()));
            receivers.push(notifier);
        }
    }
    for alertmanager in &alertmanagers {
        say(on_screen, &format!("tidewatch: every alert goes to {}", alertmanager.shown()));
    }
    Ok(Told { policy, receivers, alertmanagers, heartbeat })
}

/// A file of routes, with what is odd about it.
pub(super) fn routes(path: &Path) -> Result<(AlertingFile, Vec<String>), Failure> {
    let (file, faults) = alerting_file::load(path).map_err(Failure::usage)?;
    let lines: Vec<String> = faults.iter().map(|fault| format!("{}:{fault}", path.display())).collect();
    match file {
        Some(file) => Ok((file, lines)),
        None => Err(Failure::usage(lines.join("\n"))),
    }
}

/// The certificate for HTTPS, where the configuration names one.
pub(super) fn tls(config: &Config) -> Result<Option<Tls>, Failure> {
    let (Some(certificates), Some(key)) = (&config.http_tls_cert_file, &config.http_tls_key_file) else {
        return Ok(None);
    };
    Tls::from_files(certificates, key).map(Some).map_err(Failure::usage)
}

/// Who may ask over HTTP.
pub(super) fn access(config: &Config) -> Result<Access, Failure> {
    if let Some(file) = &config.http_tokens_file {
        let text = std::fs::read_to_string(file)
            .map_err(|error| Failure::usage(format!("http.tokens_file: {}: {error}", file.display())))?;
        return Access::tokens(&text)
            .map_err(|problem| Failure::usage(format!("http.tokens_file: {}: {problem}", file.display())));
    }
    let Some(file) = &config.http_token_file else { return Ok(Access::Open) };
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::usage(format!("http.token_file: {}: {error}", file.display())))?;
    match text.trim() {
        "" => Err(Failure::usage(format!("http.token_file: {} is empty", file.display()))),
        token => Ok(Access::token(token)),
    }
}
