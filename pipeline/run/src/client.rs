//! A running Tidewatch, asked over its API.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use serde_json::Value;
use tidewatch_serve::Asking;

use crate::config::Config;
use crate::failure::Failure;

/// Where it is, and who asks.
#[derive(Debug, Clone, clap::Args)]
pub struct ServerFlags {
    /// The running Tidewatch; without it the one of the configuration, http://127.0.0.1:7575 if that says nothing.
    #[arg(long, value_name = "URL", env = "TIDEWATCH_URL")]
    url: Option<String>,
    /// A file with the bearer token that it asks for; without it, and without a URL, the configuration's.
    #[arg(long, value_name = "FILE", env = "TIDEWATCH_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// A file with the certificates of authorities that are trusted, in PEM, in the place of the usual ones.
    #[arg(long, value_name = "FILE", env = "TIDEWATCH_CA_FILE")]
    ca_file: Option<PathBuf>,
}

/// One that can be asked.
#[derive(Debug)]
pub struct Server {
    url: String,
    token: Option<String>,
    ca: Option<Vec<u8>>,
}

impl ServerFlags {
    /// The one that is meant; the configuration is read only when no URL is given.
    ///
    /// # Errors
    /// Files that can't be read, and faults of the configuration.
    pub fn server(&self, configuration: impl FnOnce() -> Result<Config, Failure>) -> Result<Server, Failure> {
        let unreadable = |file: &PathBuf, error: std::io::Error| Failure::usage(format!("{}: {error}", file.display()));
        let (url, configured) = match &self.url {
            Some(url) => (url.trim_end_matches('/').to_string(), None),
            None => {
                let config = configuration()?;
                (address(&config), config.http_token_file)
            }
        };
        let read = |file: &PathBuf| std::fs::read_to_string(file).map_err(|error| unreadable(file, error));
        let token = self.token_file.as_ref().or(configured.as_ref()).map(read).transpose()?;
        let read = |file: &PathBuf| std::fs::read(file).map_err(|error| unreadable(file, error));
        Ok(Server { url, token, ca: self.ca_file.as_ref().map(read).transpose()? })
    }
}

/// Where the configuration's Tidewatch is asked on its own machine.
fn address(config: &Config) -> String {
    let scheme = if config.http_tls_cert_file.is_some() { "https" } else { "http" };
    let ip = match config.http_address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    format!("{scheme}://{}", SocketAddr::new(ip, config.http_address.port()))
}

impl Server {
    /// Asks; the answer's JSON.
    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let asking = Asking { token: self.token.as_deref().map(str::trim), ca: self.ca.as_deref() };
        let url = format!("{}{path}", self.url);
        let (status, text) = tidewatch_serve::ask(method, &url, asking, body).map_err(|problem| {
            let hint = if problem.contains("certificate") { "" } else { ": is 'tidewatch up' running there?" };
            Failure::no(format!("{problem}{hint}"))
        })?;
        let value: Value = serde_json::from_str(&text).unwrap_or_else(|_| Value::String(text.trim().to_string()));
        match status {
            200..=299 => Ok(value),
            status => {
                let said =
                    value["error"].as_str().or(value.as_str()).map(str::to_string).unwrap_or_else(|| value.to_string());
                Err(Failure::no(format!("{}: HTTP {status}: {said}", self.url)))
            }
        }
    }
}

/// `name=value` pairs of a query, escaped.
pub fn query(pairs: &[(&str, &str)]) -> String {
    let mut text = form_urlencoded::Serializer::new(String::new());
    text.extend_pairs(pairs);
    match text.finish() {
        empty if empty.is_empty() => empty,
        query => format!("?{query}"),
    }
}
