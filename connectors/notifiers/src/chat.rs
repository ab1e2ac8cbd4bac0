//! Channels to people over HTTP: chats, pagers, gateways. Each is the body that the other side documents; how they are sent, and what
//! an answer means, is the same for all.

use serde_json::json;
use sha2::{Digest, Sha256};
use tidewatch_model::alert::hex;
use tidewatch_model::ports::{Delivery, Notify};
use tidewatch_model::{Notice, NoticeStatus, Severity};

use crate::http::{Client, Request};
use crate::payload::{common_labels, webhook_body};
use crate::text::{Template, colour, text_of, title};

/// What kind of channel, with what it needs.
#[derive(Clone, PartialEq, Eq)]
pub enum Chat {
    /// Slack: an incoming webhook.
    Slack {
        /// The webhook.
        url: String,
        /// Another channel than the webhook's.
        channel: Option<String>,
        /// The name that posts.
        username: Option<String>,
    },
    /// Discord: a webhook.
    Discord {
        /// The webhook.
        url: String,
    },
    /// Microsoft Teams: a workflow's webhook, which takes an adaptive card.
    Teams {
        /// The webhook.
        url: String,
    },
    /// Telegram: a bot.
    Telegram {
        /// `https://api.telegram.org`, or a server of one's own.
        api_url: String,
        /// The bot's token.
        token: String,
        /// The chat.
        chat_id: String,
    },
    /// PagerDuty: Events API v2. The group is one incident.
    PagerDuty {
        /// Where events go.
        url: String,
        /// The integration's key.
        routing_key: String,
    },
    /// Opsgenie: Alerts API. The group is one alert.
    Opsgenie {
        /// Where alerts go.
        api_url: String,
        /// The integration's key.
        api_key: String,
    },
    /// `DingTalk`: a group's robot.
    DingTalk {
        /// The robot's webhook.
        url: String,
    },
    /// Feishu, or Lark: a group's bot.
    Feishu {
        /// The bot's webhook.
        url: String,
    },
    /// `WeCom`: a group's robot.
    WeCom {
        /// The robot's webhook.
        url: String,
    },
    /// Any gateway over HTTP, for SMS and phone calls: its body is a template.
    Gateway {
        /// The request without its body; the body is the `text` template.
        url: String,
        /// POST mostly.
        method: String,
        /// Headers.
        headers: Vec<(String, String)>,
    },
}

/// A channel to people over HTTP.
pub struct ChatNotifier {
    target: String,
    chat: Chat,
    title: Template,
    text: Template,
    external_url: String,
    client: Client,
}

impl ChatNotifier {
    /// Under the target's name.
    pub fn new(target: &str, chat: Chat, title: Template, text: Template, external_url: &str) -> Self {
        let external_url = external_url.to_string();
        ChatNotifier { target: target.to_string(), chat, title, text, external_url, client: Client::default() }
    }

    /// The request for a notice.
    pub fn request(&self, notice: &Notice) -> Request {
        let head = self.title.render(notice, &self.external_url, title);
        let text = self.text.render(notice, &self.external_url, text_of);
        let resolved = notice.status == NoticeStatus::Resolved;
        // The same for all notices of a group: what the other side joins them by.
        let dedup = hex(&Sha256::digest(&notice.group_key)[..16]);
        match &self.chat {
            Chat::Slack { url, channel, username } => {
                let colour = format!("#{:06x}", colour(notice));
                let mut body = json!({
                    "attachments": [{"color": colour, "title": slack(&head), "text": slack(&text), "fallback": slack(&head), "mrkdwn_in": []}],
                });
                if let Some(channel) = channel {
                    body["channel"] = json!(channel);
                }
                if let Some(username) = username {
                    body["username"] = json!(username);
                }
                Request::json(url, &body)
            }
            Chat::Discord { url } => Request::json(
                url,
                &json!({
                    "allowed_mentions": {"parse": []},
                    "embeds": [{"title": head.chars().take(256).collect::<String>(), "description": text, "color": colour(notice)}],
                }),
            ),
            Chat::Teams { url } => {
                let style = if resolved { "good" } else { "attention" };
                let block = |text: &str, weight: &str| json!({"type": "TextBlock", "text": text, "weight": weight, "wrap": true});
                let card = json!({
                    "type": "AdaptiveCard", "version": "1.4", "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                    "body": [
                        {"type": "Container", "style": style, "items": [block(&head, "bolder")]},
                        block(&text, "default"),
                    ],
                });
                let attachment = json!({"contentType": "application/vnd.microsoft.card.adaptive", "content": card});
                Request::json(url, &json!({"type": "message", "attachments": [attachment]}))
            }
            Chat::Telegram { api_url, token, chat_id } => Request::json(
                &format!("{}/bot{token}/sendMessage", api_url.trim_end_matches('/')),
                &json!({"chat_id": chat_id, "text": format!("{head}\n\n{text}"), "disable_web_page_preview": true}),
            ),
            Chat::PagerDuty { url, routing_key } => {
                let labels = common_labels(notice);
                let source =
                    labels.get("host").or(labels.get("alertname")).cloned().unwrap_or_else(|| "tidewatch".into());
                let severity = match notice.severity() {
                    Severity::Critical => "critical",
                    Severity::Warning => "warning",
                    Severity::Info => "info",
                };
                let mut body = json!({
                    "routing_key": routing_key,
                    "event_action": if resolved { "resolve" } else { "trigger" },
                    "dedup_key": dedup,
                });
                if !resolved {
                    body["client"] = json!("Tidewatch");
                    body["client_url"] = json!(self.external_url);
                    body["payload"] = json!({
                        "summary": head.chars().take(1_024).collect::<String>(),
                        "source": source,
                        "severity": severity,
                        "custom_details": {"text": text, "labels": labels},
                    });
                }
                Request::json(url, &body)
            }
            Chat::Opsgenie { api_url, api_key } => {
                let base = format!("{}/v2/alerts", api_url.trim_end_matches('/'));
                let mut request = if resolved {
                    Request::json(
                        &format!("{base}/{dedup}/close?identifierType=alias"),
                        &json!({"source": "tidewatch"}),
                    )
                } else {
                    let priority = match notice.severity() {
                        Severity::Critical => "P1",
                        Severity::Warning => "P3",
                        Severity::Info => "P5",
                    };
                    let body = json!({
                        "alias": dedup,
                        "message": head.chars().take(130).collect::<String>(),
                        "description": text,
                        "details": common_labels(notice),
                        "priority": priority,
                        "source": "tidewatch",
                    });
                    Request::json(&base, &body)
                };
                request.headers.push(("Authorization".to_string(), format!("GenieKey {api_key}")));
                request
            }
            Chat::DingTalk { url } => {
                Request::json(url, &json!({"msgtype": "text", "text": {"content": format!("{head}\n\n{text}")}}))
            }
            Chat::Feishu { url } => {
                Request::json(url, &json!({"msg_type": "text", "content": {"text": format!("{head}\n\n{text}")}}))
            }
            Chat::WeCom { url } => {
                let content: String = format!("{head}\n\n{text}").chars().take(600).collect();
                Request::json(url, &json!({"msgtype": "text", "text": {"content": content}}))
            }
            Chat::Gateway { url, method, headers } => Request {
                method: method.clone(),
                url: url.clone(),
                headers: headers.clone(),
                body: self
                    .text
                    .render_whole(notice, &self.external_url, |notice| webhook_body(notice, "", 0).to_string()),
            },
        }
    }
}

/// Slack reads these three as its own.
fn slack(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

impl Notify for ChatNotifier {
    fn target(&self) -> &str {
        &self.target
    }

    fn notify(&self, notice: &Notice) -> Delivery {
        let mut request = self.request(notice);
        request.headers.push(("Idempotency-Key".to_string(), notice.notice_id.clone()));
        match self.chat {
            Chat::DingTalk { .. } | Chat::Feishu { .. } | Chat::WeCom { .. } => {
                self.client.send_and_read(&self.target, &request, robot_took_it)
            }
            _ => self.client.send(&self.target, &request),
        }
    }

    fn preview(&self, notice: &Notice) -> String {
        let secret = match &self.chat {
            Chat::PagerDuty { routing_key, .. } => routing_key.as_str(),
            _ => "",
        };
        let text = self.request(notice).preview();
        if secret.is_empty() { text } else { text.replace(secret, "<secret>") }
    }
}

/// These three answer 200 to what they refuse, too many messages among it: a code in the body says so.
fn robot_took_it(body: &str) -> Result<(), String> {
    let answer: serde_json::Value = serde_json::from_str(body).map_err(|_| "the answer is not JSON".to_string())?;
    let code = ["errcode", "code", "StatusCode"].into_iter().find_map(|name| answer.get(name)?.as_i64());
    match code {
        Some(0) => Ok(()),
        Some(code) => Err(format!("refused with code {code}")),
        None => Err("the answer has no code".to_string()),
    }
}

/// The body of a request as JSON, for tests.
#[cfg(test)]
pub(crate) fn body_of(request: &Request) -> serde_json::Value {
    serde_json::from_str(&request.body).unwrap_or_default()
}

#[cfg(test)]
#[path = "chat_tests.rs"]
mod tests;
