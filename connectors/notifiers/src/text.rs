//! Texts for people: one default title and text for every channel, and templates in their place.

use minijinja::{AutoEscape, Environment, UndefinedBehavior, context};
use tidewatch_model::alert::Labels;
use tidewatch_model::{Alert, AlertState, Notice, NoticeStatus, Severity, Timestamp};

use crate::payload::webhook_body;

/// The longest text that is sent; what is over is cut.
const TEXT_CHARS: usize = 3_000;
/// The alerts that a text names; the others are counted.
const ALERTS_IN_TEXT: usize = 20;

/// A template that was read, or the default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Template {
    text: Option<String>,
    /// Whether values are escaped for HTML.
    html: bool,
}

impl Template {
    /// Reads a template: minijinja's language, over the fields of the webhook's body, and `title`, `text`, `reason`.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn new(text: &str) -> Result<Template, String> {
        Template::read(text, false)
    }

    /// The same for HTML: values are escaped.
    ///
    /// # Errors
    /// As [`Template::new`].
    pub fn html(text: &str) -> Result<Template, String> {
        Template::read(text, true)
    }

    fn read(text: &str, html: bool) -> Result<Template, String> {
        if text.contains("{{ .") || text.contains("{{.") || text.contains("{{ template") || text.contains("{{ range") {
            return Err(
                "it is a template of Go: expected one like {{ title }} or {{ commonLabels.alertname }}".to_string()
            );
        }
        // A filter that does not exist is found only when it is used.
        for status in [NoticeStatus::Firing, NoticeStatus::Resolved] {
            render(text, html, &sample(status), "").map_err(|error| error.to_string().replace('\n', " "))?;
        }
        Ok(Template { text: Some(text.to_string()), html })
    }

    /// Whether there is one.
    pub fn is_given(&self) -> bool {
        self.text.is_some()
    }

    /// Renders it; `default` when there is none. What fails on a notice comes as the default: a page without its text is better than
    /// none.
    pub fn render(&self, notice: &Notice, external_url: &str, default: fn(&Notice) -> String) -> String {
        cut(self.render_whole(notice, external_url, default))
    }

    /// The same, however long it is.
    pub fn render_whole(&self, notice: &Notice, external_url: &str, default: fn(&Notice) -> String) -> String {
        let rendered = self.text.as_ref().and_then(|text| render(text, self.html, notice, external_url).ok());
        rendered.unwrap_or_else(|| default(notice))
    }
}

/// Renders a template over a notice; fails where the template does.
fn render(text: &str, html: bool, notice: &Notice, external_url: &str) -> Result<String, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Chainable);
    environment.set_auto_escape_callback(move |_| if html { AutoEscape::Html } else { AutoEscape::None });
    let body = minijinja::Value::from_serialize(webhook_body(notice, external_url, 0));
    let more = context! { title => title(notice), text => text_of(notice), reason => notice.reason.clone() };
    environment.render_str(text, context! { ..more, ..body })
}

/// A notice that templates are tried on.
pub fn sample(status: NoticeStatus) -> Notice {
    let (ts, text) = (Timestamp(0), |text: &str| text.to_string());
    let labels: Labels = [(text("alertname"), text("sample")), (text("host"), text("n1"))].into();
    let alert = Alert {
        key: vec![text("host")],
        state: if status == NoticeStatus::Firing { AlertState::Firing } else { AlertState::Resolved },
        fired_at: Some(ts),
        resolved_at: (status == NoticeStatus::Resolved).then_some(ts),
        annotations: [(text("summary"), text("a sample"))].into(),
        ..Alert::new(labels.clone(), Severity::Critical, ts)
    };
    Notice {
        notice_id: String::new(),
        receiver: text("sample"),
        target: text("sample"),
        group_key: String::new(),
        group_labels: labels,
        status,
        reason: text("first"),
        alerts: vec![alert],
        ts,
    }
}

fn cut(text: String) -> String {
    match text.char_indices().nth(TEXT_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// `[FIRING:2] gpu_hot n1`: how it stands, how many fire, the values of the labels grouped by.
pub fn title(notice: &Notice) -> String {
    let firing = notice.alerts.iter().filter(|alert| alert.state == AlertState::Firing).count();
    let status = match notice.status {
        NoticeStatus::Firing => format!("FIRING:{firing}"),
        NoticeStatus::Resolved => "RESOLVED".to_string(),
    };
    let mut names: Vec<&str> = notice.group_labels.get("alertname").map(String::as_str).into_iter().collect();
    names.extend(notice.group_labels.iter().filter(|(name, _)| *name != "alertname").map(|(_, value)| value.as_str()));
    plain(&format!("[{status}] {}", names.join(" ")))
}

/// A paragraph per alert: how it stands, its summary, description, runbook, labels.
pub fn text_of(notice: &Notice) -> String {
    let shown = notice.alerts.iter().take(ALERTS_IN_TEXT).map(paragraph);
    let mut parts: Vec<String> = shown.collect();
    if let Some(more) = notice.alerts.len().checked_sub(ALERTS_IN_TEXT).filter(|more| *more > 0) {
        parts.push(format!("and {more} more"));
    }
    parts.join("\n\n")
}

fn paragraph(alert: &Alert) -> String {
    let status = match (alert.state, alert.stale_since) {
        (AlertState::Resolved, _) => "resolved".to_string(),
        (_, Some(since)) => format!("firing, no data since {since}"),
        _ if alert.flaps => "firing, comes and goes".to_string(),
        _ => "firing".to_string(),
    };
    let annotation = |name: &str| alert.annotations.get(name).filter(|text| !text.is_empty()).map(|text| plain(text));
    let labels = alert.labels.iter().filter(|(name, _)| *name != "alertname");
    let labels: Vec<String> = labels.map(|(name, value)| format!("{name}={value}")).collect();
    let head = format!("{} ({}, {status})", alert.rule, alert.severity);
    let known = [annotation("summary"), annotation("description"), annotation("runbook_url")];
    let lines = std::iter::once(plain(&head)).chain(known.into_iter().flatten());
    lines.chain(std::iter::once(plain(&labels.join(" ")))).collect::<Vec<_>>().join("\n")
}

/// Without control characters, which terminals and log readers obey.
fn plain(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() && letter != '\n' { '\u{fffd}' } else { letter }).collect()
}

/// Red, orange, blue; green when it is over. As 0xRRGGBB.
pub fn colour(notice: &Notice) -> u32 {
    match (notice.status, notice.severity()) {
        (NoticeStatus::Resolved, _) => 0x002e_a44f,
        (_, Severity::Critical) => 0x00d7_3a49,
        (_, Severity::Warning) => 0x00f6_6a0a,
        (_, Severity::Info) => 0x0003_66d6,
    }
}
