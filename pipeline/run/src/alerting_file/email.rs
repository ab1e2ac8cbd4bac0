//! E-mail: Alertmanager's `email_config`.

use std::path::Path;

use tidewatch_notifiers::{Email, IMPLICIT_TLS, Template, addresses};

use super::beside;
use super::receivers::{Channel, Global, read_html, read_template, secret, template};
use super::yaml::{Fields, Node};

/// Reads how a receiver gets e-mail.
pub(super) fn email(fields: &mut Fields, global: &Global, folder: &Path) -> Option<Channel> {
    let mut text = |key| fields.get(key).and_then(|node: Node| node.text());
    let smtp = &global.smtp;
    let from = text("from").or_else(|| smtp.from.clone());
    let smarthost = text("smarthost").or_else(|| smtp.smarthost.clone());
    let hello = text("hello").or_else(|| smtp.hello.clone());
    let username = text("auth_username").or_else(|| smtp.username.clone());
    let to = fields.get("to").and_then(|node| node.parse(addresses));
    let password = secret(fields, "auth_password", "auth_password_file", folder).or_else(|| smtp.password.clone());
    let require_tls = fields.get("require_tls").and_then(|node| node.bool()).or(smtp.require_tls).unwrap_or(true);
    let html = fields.get("html").and_then(|node| node.text().map(|text| (node, text)));
    let html = html
        .filter(|(_, text)| !text.is_empty())
        .map(|(node, text)| read_html(&node, &text))
        .filter(Template::is_given);
    let body = template(fields, "text");
    let (mut subject, mut more) = (Template::default(), Vec::new());
    for (name, node) in fields.get("headers").into_iter().flat_map(|node| node.entries()) {
        let Some(value) = node.text() else { continue };
        if name.eq_ignore_ascii_case("subject") {
            subject = read_template(&node, &value);
        } else if ["to", "from"].iter().any(|own| name.eq_ignore_ascii_case(own)) {
            node.warning("is not supported and left out");
        } else if value.contains("{{") {
            node.warning("templates are read in Subject only; left out");
        } else {
            more.push((name, value));
        }
    }
    let (mut ca, mut server_name, mut insecure_skip_verify) = (None, None, false);
    if let Some(mut tls) = fields.get("tls_config").and_then(|node| node.fields()) {
        tls.must_not(&["cert_file", "key_file", "cert", "key"]);
        let read = |name: &str| {
            let path = beside(folder, name);
            std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))
        };
        ca = tls.get("ca_file").and_then(|node| node.parse(read));
        server_name = tls.get("server_name").and_then(|node| node.text());
        insecure_skip_verify = tls.get("insecure_skip_verify").and_then(|node| node.bool()).unwrap_or(false);
        tls.cannot(&["min_version", "max_version"]);
        tls.finish();
    }
    let node = fields.node().clone();
    let from = match from.as_deref().map(addresses) {
        Some(Ok(mut found)) if found.len() == 1 => Some(found.remove(0)),
        Some(Ok(_)) => {
            node.error("from: expected one address");
            None
        }
        Some(Err(problem)) => {
            node.error(format!("from: {problem}"));
            None
        }
        None => {
            node.error("expected from, or smtp_from in global");
            None
        }
    };
    let place = smarthost.as_deref().and_then(|text| text.rsplit_once(':'));
    let place =
        place.and_then(|(host, port)| Some((host.trim_matches(['[', ']']).to_string(), port.parse::<u16>().ok()?)));
    if place.is_none() {
        node.error("expected smarthost, or smtp_smarthost in global: HOST:PORT");
    }
    if to.is_none() && !fields.has("to") {
        node.error("expected to");
    }
    let (host, port) = place?;
    let credentials = username.zip(password);
    let has_tls = require_tls || port == IMPLICIT_TLS;
    if credentials.is_some() && !has_tls && !["localhost", "127.0.0.1", "::1"].contains(&host.as_str()) {
        node.error("a password is not sent without TLS: expected require_tls");
    }
    let (from, to, text) = (from?, to?, body);
    Some(Channel::Email {
        email: Box::new(Email {
            to,
            from,
            host,
            port,
            hello,
            credentials,
            require_tls,
            server_name,
            ca,
            insecure_skip_verify,
            subject,
            text,
            html,
            headers: more,
        }),
    })
}
