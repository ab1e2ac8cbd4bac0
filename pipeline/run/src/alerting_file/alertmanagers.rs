//! Alertmanagers that get every alert, as `prometheus.yml` lists them.

use std::fmt;
use std::path::Path;

use tidewatch_model::Span;
use tidewatch_notifiers::Feed;

use super::receivers::credentials;
use super::yaml::Node;
use crate::config::redact;

/// An Alertmanager that gets every alert.
#[derive(Clone, PartialEq)]
pub struct Alertmanager {
    url: String,
    headers: Vec<(String, String)>,
    timeout: Option<Span>,
}

impl Alertmanager {
    /// At a URL.
    pub fn at(url: &str) -> Alertmanager {
        Alertmanager { url: url.to_string(), headers: vec![], timeout: None }
    }

    /// What sends it alerts.
    pub fn feed(self, external_url: &str) -> Feed {
        Feed::new(&self.url, self.headers, external_url, self.timeout)
    }

    /// Its URL, whose user and password are never shown.
    pub fn shown(&self) -> String {
        redact(&self.url)
    }
}

impl fmt::Debug for Alertmanager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

/// Reads Prometheus' list of Alertmanagers.
pub fn read(node: &Node, folder: &Path) -> Vec<Alertmanager> {
    let mut found = Vec::new();
    for node in node.list() {
        let Some(mut fields) = node.fields() else { continue };
        let scheme = fields.get("scheme").and_then(|node| node.text()).unwrap_or_else(|| "http".to_string());
        let prefix = fields.get("path_prefix").and_then(|node| node.text()).unwrap_or_default();
        let timeout = fields.get("timeout").and_then(|node| node.span());
        let headers: Vec<(String, String)> = credentials(&mut fields, folder).into_iter().collect();
        drop((fields.get("api_version"), fields.get("follow_redirects"), fields.get("enable_http2")));
        fields.must_not(&["tls_config", "proxy_url", "oauth2", "sigv4"]);
        fields.cannot(&["relabel_configs", "alert_relabel_configs"]);
        for node in fields.get("static_configs").into_iter().flat_map(|node| node.list()) {
            let Some(mut config) = node.fields() else { continue };
            for target in config.get("targets").into_iter().flat_map(|node| node.list()) {
                let url = target.text().map(|target| format!("{scheme}://{target}/{}", prefix.trim_matches('/')));
                found.extend(url.map(|url| Alertmanager { url, headers: headers.clone(), timeout }));
            }
            config.cannot(&["labels"]);
            config.finish();
        }
        fields.finish();
    }
    found
}
