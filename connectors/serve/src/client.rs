//! The other end: the API of a running Tidewatch, asked.

use std::sync::Arc;

use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// Who asks, and whom they trust.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asking<'a> {
    /// The bearer token.
    pub token: Option<&'a str>,
    /// Certificates of authorities, in PEM, in the place of the usual ones.
    pub ca: Option<&'a [u8]>,
}

/// Asks once; the status and the body. No redirects are followed.
///
/// # Errors
/// What is wrong with the URL or the certificates, or why there is no answer, in words.
pub fn ask(
    method: &str,
    url: &str,
    asking: Asking<'_>,
    body: Option<&serde_json::Value>,
) -> Result<(u16, String), String> {
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    if let Some(token) = asking.token {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    if body.is_some() {
        request = request.header("Content-Type", "application/json");
    }
    let text = body.map(serde_json::Value::to_string).unwrap_or_default();
    let request = request.body(text).map_err(|_| format!("{url}: not a URL"))?;
    let mut config = ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0);
    let host = url.split_once("://").map_or(url, |(_, rest)| rest);
    if ["127.", "[::1]", "localhost:"].iter().any(|own| host.starts_with(own)) {
        // What this machine asks itself is no proxy's business.
        config = config.proxy(None);
    }
    if let Some(ca) = asking.ca {
        let mut trusted: Vec<Certificate<'static>> = Vec::new();
        for item in parse_pem(ca) {
            match item.map_err(|error| format!("the certificates can't be read: {error}"))? {
                PemItem::Certificate(certificate) => trusted.push(certificate),
                _ => return Err("the certificates can't be read: expected nothing else in their file".to_string()),
            }
        }
        config = config.tls_config(TlsConfig::builder().root_certs(RootCerts::Specific(Arc::new(trusted))).build());
    }
    let agent: ureq::Agent = config.build().into();
    let mut response = agent.run(request).map_err(|error| format!("{url}: {error}"))?;
    let text = response.body_mut().read_to_string().map_err(|error| format!("{url}: {error}"))?;
    Ok((response.status().as_u16(), text))
}
