//! Receivers and their channels.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use tidewatch_flow::alerting::Target;
use tidewatch_model::Span;
use tidewatch_model::ports::{Log, Notify};
use tidewatch_notifiers::{
    Chat, ChatNotifier, CommandNotifier, Email, EmailNotifier, Template, TopicNotifier, WebhookNotifier,
};

use super::beside;
use super::yaml::{Fields, Node};

/// How a target is reached. What is secret in it is never shown.
pub enum Channel {
    /// Alertmanager's webhook.
    Webhook {
        /// Where to.
        url: String,
        /// Headers.
        headers: Vec<(String, String)>,
        /// The most alerts in a body.
        max_alerts: usize,
        /// For an attempt.
        timeout: Option<Span>,
    },
    /// A chat, a pager, a gateway.
    Chat {
        /// Which.
        chat: Chat,
        /// Its title.
        title: Template,
        /// Its text.
        text: Template,
    },
    /// E-mail.
    Email {
        /// How.
        email: Box<Email>,
    },
    /// A topic of the log.
    Topic {
        /// Its name.
        topic: String,
    },
    /// A program.
    Command {
        /// The program and its arguments.
        arguments: Vec<String>,
        /// For an attempt.
        timeout: Option<Span>,
    },
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Channel::Webhook { .. } => "Webhook",
            Channel::Chat { .. } => "Chat",
            Channel::Email { .. } => "Email",
            Channel::Topic { .. } => "Topic",
            Channel::Command { .. } => "Command",
        })
    }
}

impl Channel {
    /// The notifier of a target.
    ///
    /// # Errors
    /// Certificates that are none.
    pub fn notifier(self, target: &str, external_url: &str, log: &Arc<dyn Log>) -> Result<Arc<dyn Notify>, String> {
        Ok(match self {
            Channel::Webhook { url, headers, max_alerts, timeout } => {
                let notifier = match timeout {
                    Some(timeout) => WebhookNotifier::with_timeout(target, &url, external_url, timeout),
                    None => WebhookNotifier::new(target, &url, external_url),
                };
                Arc::new(notifier.with_options(headers, max_alerts))
            }
            Channel::Chat { chat, title, text } => Arc::new(ChatNotifier::new(target, chat, title, text, external_url)),
            Channel::Email { email } => Arc::new(
                EmailNotifier::new(target, *email, external_url, None).map_err(|error| format!("{target}: {error}"))?,
            ),
            Channel::Topic { topic } => Arc::new(TopicNotifier::new(target, &topic, log.clone(), external_url)),
            Channel::Command { arguments, timeout } => {
                Arc::new(CommandNotifier::new(target, arguments, timeout, external_url))
            }
        })
    }
}

/// What receivers have in common.
#[derive(Default)]
pub struct Global {
    slack_api_url: Option<String>,
    opsgenie_api_url: Option<String>,
    opsgenie_api_key: Option<String>,
    pagerduty_url: Option<String>,
    telegram_api_url: Option<String>,
    pub(super) smtp: Smtp,
}

/// How e-mail goes out, where a receiver does not say.
#[derive(Clone, Default)]
pub(super) struct Smtp {
    pub(super) from: Option<String>,
    pub(super) smarthost: Option<String>,
    pub(super) hello: Option<String>,
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
    pub(super) require_tls: Option<bool>,
}

impl Global {
    /// Reads them.
    pub fn read(node: Option<&Node>, folder: &Path) -> Global {
        let Some(mut fields) = node.and_then(Node::fields) else { return Global::default() };
        let mut text = |key, file| secret(&mut fields, key, file, folder);
        let global = Global {
            slack_api_url: text("slack_api_url", "slack_api_url_file"),
            opsgenie_api_key: text("opsgenie_api_key", "opsgenie_api_key_file"),
            opsgenie_api_url: fields.get("opsgenie_api_url").and_then(|node| node.text()),
            pagerduty_url: fields.get("pagerduty_url").and_then(|node| node.text()),
            telegram_api_url: fields.get("telegram_api_url").and_then(|node| node.text()),
            smtp: Smtp {
                password: secret(&mut fields, "smtp_auth_password", "smtp_auth_password_file", folder),
                from: fields.get("smtp_from").and_then(|node| node.text()),
                smarthost: fields.get("smtp_smarthost").and_then(|node| node.text()),
                hello: fields.get("smtp_hello").and_then(|node| node.text()),
                username: fields.get("smtp_auth_username").and_then(|node| node.text()),
                require_tls: fields.get("smtp_require_tls").and_then(|node| node.bool()),
            },
        };
        no_credentials(&mut fields);
        // An alert of ours ends when its rule says so, and not when nobody renews it.
        drop(fields.get("resolve_timeout"));
        fields.cannot(&[
            "smtp_auth_secret",
            "smtp_auth_identity",
            "victorops_api_key",
            "victorops_api_key_file",
            "victorops_api_url",
            "wechat_api_url",
            "wechat_api_secret",
            "wechat_api_corp_id",
            "webex_api_url",
        ]);
        fields.finish();
        global
    }
}

/// A text that may be secret: as it is, from a file, or `${NAME}` from the environment.
pub(super) fn secret(fields: &mut Fields, key: &'static str, file: &'static str, folder: &Path) -> Option<String> {
    let (plain, from_file) = (fields.get(key), fields.get(file));
    match (plain, from_file) {
        (Some(_), Some(node)) => {
            node.error(format!("{key} is there too: expected one of them"));
            None
        }
        (Some(node), None) => node.parse(from_environment),
        (None, Some(node)) => node.parse(|name| {
            let path = beside(folder, name);
            let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            match text.trim() {
                "" => Err(format!("{} is empty", path.display())),
                text => Ok(text.to_string()),
            }
        }),
        (None, None) => None,
    }
}

/// Keys of receivers for which we have no channel.
const NOT_HERE: [&str; 8] = [
    "pushover_configs",
    "victorops_configs",
    "wechat_configs",
    "sns_configs",
    "webex_configs",
    "jira_configs",
    "rocketchat_configs",
    "incidentio_configs",
];

/// All receivers: the targets of each, and how each is reached.
pub fn read(
    node: Option<&Node>,
    global: &Global,
    folder: &Path,
) -> (BTreeMap<String, Vec<Target>>, BTreeMap<String, Channel>) {
    let (mut receivers, mut channels) = (BTreeMap::new(), BTreeMap::new());
    for node in node.into_iter().flat_map(Node::list) {
        let Some(mut fields) = node.fields() else { continue };
        let Some(name) = fields.get("name").and_then(|node| node.text()) else {
            node.error("expected its name");
            continue;
        };
        let mut found: Vec<(&str, bool, Channel)> = Vec::new();
        for kind in KINDS {
            for node in fields.get(kind.key).into_iter().flat_map(|node| node.list()) {
                let Some(mut fields) = node.fields() else { continue };
                let send_resolved =
                    fields.get("send_resolved").and_then(|node| node.bool()).unwrap_or(kind.send_resolved);
                let channel = (kind.read)(&mut fields, global, folder);
                if !["webhook_configs", "http_configs"].contains(&kind.key) {
                    no_credentials(&mut fields);
                }
                fields.cannot(kind.cannot);
                fields.finish();
                found.extend(channel.map(|channel| (kind.key.trim_end_matches("_configs"), send_resolved, channel)));
            }
        }
        let lost = NOT_HERE.iter().any(|key| fields.has(key));
        fields.cannot(&NOT_HERE);
        if lost && found.is_empty() {
            node.error(format!("nothing of '{name}' can be done here: what is routed to it would be told to nobody"));
        }
        let alone = found.len() == 1;
        let mut targets = Vec::new();
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (kind, send_resolved, channel) in found {
            let index = counts.entry(kind).or_default();
            let target = if alone { name.clone() } else { format!("{name}/{kind}[{index}]") };
            *index += 1;
            targets.push(Target { name: target.clone(), send_resolved });
            channels.insert(target, channel);
        }
        if receivers.insert(name.clone(), targets).is_some() {
            node.error(format!("'{name}' is there twice"));
        }
        fields.finish();
    }
    (receivers, channels)
}

/// A kind of channel: its key in a receiver, Alertmanager's default of `send_resolved`, how it is read, and what we leave out.
struct Kind {
    key: &'static str,
    send_resolved: bool,
    read: fn(&mut Fields, &Global, &Path) -> Option<Channel>,
    cannot: &'static [&'static str],
}

const KINDS: [Kind; 15] = [
    Kind { key: "webhook_configs", send_resolved: true, read: webhook, cannot: &[] },
    Kind {
        key: "slack_configs",
        send_resolved: false,
        read: slack,
        cannot: &[
            "icon_emoji",
            "icon_url",
            "link_names",
            "color",
            "pretext",
            "fallback",
            "actions",
            "fields",
            "footer",
            "short_fields",
            "title_link",
            "image_url",
            "thumb_url",
            "mrkdwn_in",
            "callback_id",
        ],
    },
    Kind { key: "discord_configs", send_resolved: true, read: discord, cannot: &["content", "username", "avatar_url"] },
    Kind { key: "msteams_configs", send_resolved: true, read: teams, cannot: &["summary"] },
    Kind { key: "msteamsv2_configs", send_resolved: true, read: teams, cannot: &[] },
    Kind {
        key: "telegram_configs",
        send_resolved: true,
        read: telegram,
        cannot: &["disable_notifications", "parse_mode"],
    },
    Kind {
        key: "pagerduty_configs",
        send_resolved: true,
        read: pagerduty,
        cannot: &[
            "client",
            "client_url",
            "severity",
            "details",
            "images",
            "links",
            "source",
            "component",
            "group",
            "class",
            "service_key",
            "service_key_file",
        ],
    },
    Kind {
        key: "opsgenie_configs",
        send_resolved: true,
        read: opsgenie,
        cannot: &["source", "details", "responders", "tags", "note", "priority", "update_alerts", "entity", "actions"],
    },
    Kind {
        key: "dingtalk_configs",
        send_resolved: true,
        read: |fields, _, folder| robot(fields, folder, |url| Chat::DingTalk { url }),
        cannot: &[],
    },
    Kind {
        key: "feishu_configs",
        send_resolved: true,
        read: |fields, _, folder| robot(fields, folder, |url| Chat::Feishu { url }),
        cannot: &[],
    },
    Kind {
        key: "wecom_configs",
        send_resolved: true,
        read: |fields, _, folder| robot(fields, folder, |url| Chat::WeCom { url }),
        cannot: &[],
    },
    Kind {
        key: "email_configs",
        send_resolved: false,
        read: super::email::email,
        cannot: &["auth_secret", "auth_identity"],
    },
    Kind { key: "kafka_configs", send_resolved: true, read: topic, cannot: &[] },
    Kind { key: "http_configs", send_resolved: true, read: gateway, cannot: &[] },
    Kind { key: "command_configs", send_resolved: true, read: command, cannot: &[] },
];

/// A URL that must be there.
fn url(
    fields: &mut Fields,
    key: &'static str,
    file: &'static str,
    folder: &Path,
    known: Option<&String>,
) -> Option<String> {
    let found = secret(fields, key, file, folder).or_else(|| known.cloned());
    match &found {
        None => fields.node().error(format!("expected {key}")),
        Some(url) if !url.starts_with("http://") && !url.starts_with("https://") => {
            fields.node().error(format!("{key}: expected http:// or https://"));
        }
        Some(_) => {}
    }
    found
}

/// A template of ours; one of Go's is left out with a warning, and the default stands in for it.
pub(super) fn template(fields: &mut Fields, key: &'static str) -> Template {
    let Some(node) = fields.get(key) else { return Template::default() };
    let Some(text) = node.text() else { return Template::default() };
    read_template(&node, &text)
}

pub(super) fn read_template(node: &Node, text: &str) -> Template {
    read_with(node, Template::new(text))
}

/// The same for HTML, in which what comes from rows is escaped.
pub(super) fn read_html(node: &Node, text: &str) -> Template {
    read_with(node, Template::html(text))
}

fn read_with(node: &Node, read: Result<Template, String>) -> Template {
    read.unwrap_or_else(|problem| {
        if problem.contains("template of Go") {
            node.warning(format!("{problem}; the default text is sent"));
        } else {
            node.error(problem);
        }
        Template::default()
    })
}

fn chat(fields: &mut Fields, title: &'static str, text: &'static str, chat: Option<Chat>) -> Option<Channel> {
    let (title, text) = (template(fields, title), template(fields, text));
    Some(Channel::Chat { chat: chat?, title, text })
}

fn webhook(fields: &mut Fields, _: &Global, folder: &Path) -> Option<Channel> {
    let url = url(fields, "url", "url_file", folder, None);
    let max_alerts = fields.get("max_alerts").and_then(|node| node.parse(str::parse::<usize>)).unwrap_or(0);
    let timeout = fields.get("timeout").and_then(|node| node.span()).filter(|timeout| *timeout > Span::ZERO);
    let mut headers = headers(fields);
    headers.extend(authorization(fields, folder));
    Some(Channel::Webhook { url: url?, headers, max_alerts, timeout })
}

/// The header that `http_config` asks for.
fn authorization(fields: &mut Fields, folder: &Path) -> Option<(String, String)> {
    let mut config = http_config(fields)?;
    let found = credentials(&mut config, folder);
    config.finish();
    found
}

/// The header with the credentials that `basic_auth` or `authorization` ask for.
pub(super) fn credentials(config: &mut Fields, folder: &Path) -> Option<(String, String)> {
    let mut value = None;
    if let Some(mut basic) = config.get("basic_auth").and_then(|node| node.fields()) {
        let user = basic.get("username").and_then(|node| node.text()).unwrap_or_default();
        let password = secret(&mut basic, "password", "password_file", folder).unwrap_or_default();
        value = Some(format!("Basic {}", base64(format!("{user}:{password}").as_bytes())));
        basic.finish();
    }
    if let Some(mut other) = config.get("authorization").and_then(|node| node.fields()) {
        let kind = other.get("type").and_then(|node| node.text()).unwrap_or_else(|| "Bearer".to_string());
        let credentials = secret(&mut other, "credentials", "credentials_file", folder).unwrap_or_default();
        value = Some(format!("{kind} {credentials}"));
        other.finish();
    }
    value.map(|value| ("Authorization".to_string(), value))
}

/// `http_config` where we send no credentials: only what changes nothing.
fn no_credentials(fields: &mut Fields) {
    let Some(mut config) = http_config(fields) else { return };
    config.must_not(&["basic_auth", "authorization"]);
    config.finish();
}

/// `http_config`, without what changes nothing for us and what we can't do.
fn http_config<'a>(fields: &mut Fields<'a>) -> Option<Fields<'a>> {
    let mut config = fields.get("http_config").and_then(|node| node.fields())?;
    drop((config.get("follow_redirects"), config.get("enable_http2")));
    config.must_not(&[
        "tls_config",
        "proxy_url",
        "proxy_from_environment",
        "oauth2",
        "bearer_token",
        "bearer_token_file",
    ]);
    Some(config)
}

/// Base64 (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let whole = chunk.iter().fold(0u32, |whole, byte| whole << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = DIGITS[(whole >> (18 - 6 * place)) as usize & 63] as char;
            text.push(if place > chunk.len() { '=' } else { digit });
        }
    }
    text
}

fn headers(fields: &mut Fields) -> Vec<(String, String)> {
    let entries = fields.get("headers").into_iter().flat_map(|node| node.entries());
    entries.filter_map(|(name, node)| node.parse(from_environment).map(|value| (name, value))).collect()
}

/// A text as it is, or `${NAME}` from the environment.
fn from_environment(text: &str) -> Result<String, String> {
    match text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) {
        Some(name) => std::env::var(name).map_err(|_| format!("the environment has no {name}")),
        None => Ok(text.to_string()),
    }
}

fn slack(fields: &mut Fields, global: &Global, folder: &Path) -> Option<Channel> {
    let url = url(fields, "api_url", "api_url_file", folder, global.slack_api_url.as_ref());
    let mut text = |key| fields.get(key).and_then(|node: Node| node.text());
    let (channel, username) = (text("channel"), text("username"));
    chat(fields, "title", "text", url.map(|url| Chat::Slack { url, channel, username }))
}

fn discord(fields: &mut Fields, _: &Global, folder: &Path) -> Option<Channel> {
    let url = url(fields, "webhook_url", "webhook_url_file", folder, None);
    chat(fields, "title", "message", url.map(|url| Chat::Discord { url }))
}

fn teams(fields: &mut Fields, _: &Global, folder: &Path) -> Option<Channel> {
    let url = url(fields, "webhook_url", "webhook_url_file", folder, None);
    chat(fields, "title", "text", url.map(|url| Chat::Teams { url }))
}

fn telegram(fields: &mut Fields, global: &Global, folder: &Path) -> Option<Channel> {
    fields.must_not(&["message_thread_id"]);
    let token = secret(fields, "bot_token", "bot_token_file", folder);
    let chat_id = fields.get("chat_id").and_then(|node| node.text());
    let own = fields.get("api_url").and_then(|node| node.text());
    let api_url =
        own.or_else(|| global.telegram_api_url.clone()).unwrap_or_else(|| "https://api.telegram.org".to_string());
    if token.is_none() || chat_id.is_none() {
        fields.node().error("expected bot_token and chat_id");
    }
    let found = token.zip(chat_id).map(|(token, chat_id)| Chat::Telegram { api_url, token, chat_id });
    chat(fields, "title", "message", found)
}

fn pagerduty(fields: &mut Fields, global: &Global, folder: &Path) -> Option<Channel> {
    let key = secret(fields, "routing_key", "routing_key_file", folder);
    let own = fields.get("url").and_then(|node| node.text()).or_else(|| global.pagerduty_url.clone());
    let url = own.unwrap_or_else(|| "https://events.pagerduty.com/v2/enqueue".to_string());
    if key.is_none() {
        fields.node().error("expected routing_key, that of an Events API v2 integration");
    }
    chat(fields, "description", "text", key.map(|routing_key| Chat::PagerDuty { url, routing_key }))
}

fn opsgenie(fields: &mut Fields, global: &Global, folder: &Path) -> Option<Channel> {
    fields.must_not(&["responders"]);
    let key = secret(fields, "api_key", "api_key_file", folder).or_else(|| global.opsgenie_api_key.clone());
    let own = fields.get("api_url").and_then(|node| node.text()).or_else(|| global.opsgenie_api_url.clone());
    let api_url = own.unwrap_or_else(|| "https://api.opsgenie.com/".to_string());
    if key.is_none() {
        fields.node().error("expected api_key");
    }
    chat(fields, "message", "description", key.map(|api_key| Chat::Opsgenie { api_url, api_key }))
}

fn robot(fields: &mut Fields, folder: &Path, make: fn(String) -> Chat) -> Option<Channel> {
    let url = url(fields, "url", "url_file", folder, None);
    chat(fields, "title", "text", url.map(make))
}

fn gateway(fields: &mut Fields, _: &Global, folder: &Path) -> Option<Channel> {
    let url = url(fields, "url", "url_file", folder, None);
    let method = fields.get("method").and_then(|node| node.text()).unwrap_or_else(|| "POST".to_string());
    let mut headers = headers(fields);
    headers.extend(authorization(fields, folder));
    chat(fields, "title", "body", url.map(|url| Chat::Gateway { url, method, headers }))
}

fn topic(fields: &mut Fields, _: &Global, _: &Path) -> Option<Channel> {
    let good = |name: &str| {
        let letters = name.chars().all(|letter| letter.is_ascii_alphanumeric() || "._-".contains(letter));
        match !name.is_empty() && letters && name.len() <= 249 && !name.starts_with("tidewatch.") {
            true => Ok(name.to_string()),
            false => {
                Err("expected a topic's name: letters, digits, '.', '_' and '-', and not one of ours, tidewatch.*")
            }
        }
    };
    let node = fields.get("topic");
    if node.is_none() {
        fields.node().error("expected topic");
    }
    Some(Channel::Topic { topic: node?.parse(good)? })
}

fn command(fields: &mut Fields, _: &Global, _: &Path) -> Option<Channel> {
    let arguments: Vec<String> =
        fields.get("command").into_iter().flat_map(|node| node.list()).filter_map(|node| node.text()).collect();
    let timeout = fields.get("timeout").and_then(|node| node.span());
    if arguments.is_empty() {
        fields.node().error("expected command: a program and its arguments, as a list");
        return None;
    }
    Some(Channel::Command { arguments, timeout })
}
