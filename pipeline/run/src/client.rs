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
    /// The running Tidewatch; without it the one of the configuration on this machine, http://127.0.0.1:7575 if that says nothing.
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
    /// Files that can't be read, faults of the configuration, and one that does not say enough.
    pub fn server(&self, configuration: impl FnOnce() -> Result<Config, Failure>) -> Result<Server, Failure> {
        let unreadable = |file: &PathBuf, error: std::io::Error| Failure::usage(format!("{}: {error}", file.display()));
        let (url, configured) = match &self.url {
            Some(url) => (url.trim_end_matches('/').to_string(), None),
            None => {
                let config = configuration()?;
                let url = address(&config).map_err(Failure::usage)?;
                if config.http_tokens_file.is_some() && self.token_file.is_none() {
                    return Err(Failure::usage("http.tokens_file has several tokens: expected --token-file"));
                }
                (url, config.http_token_file)
            }
        };
        let read = |file: &PathBuf| std::fs::read_to_string(file).map_err(|error| unreadable(file, error));
        let token = self.token_file.as_ref().or(configured.as_ref()).map(read).transpose()?;
        let read = |file: &PathBuf| std::fs::read(file).map_err(|error| unreadable(file, error));
        Ok(Server { url, token, ca: self.ca_file.as_ref().map(read).transpose()? })
    }
}

/// Where the configuration's Tidewatch is asked on its own machine. A configuration may lie in a folder of somebody else's: no token goes
/// anywhere else for what it says, and what a certificate says only its owner knows.
fn address(config: &Config) -> Result<String, String> {
    let (ip, port) = (config.http_address.ip(), config.http_address.port());
    if config.http_tls_cert_file.is_some() {
        return Err(format!(
            "http.tls_cert_file is set: expected --url https://NAME:{port}, a name of the certificate's"
        ));
    }
    let ip = match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip if ip.is_loopback() => ip,
        ip => return Err(format!("http.address is {ip}: expected --url http://{}", SocketAddr::new(ip, port))),
    };
    Ok(format!("http://{}", SocketAddr::new(ip, port)))
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_says_where_and_nobody_elses_machine_is_asked_for_it() {
        let with = |settings: &[(&str, &str)]| {
            let environment = settings.iter().map(|(name, value)| (format!("TIDEWATCH_{name}"), value.to_string()));
            let config = crate::config::load(None, environment.collect::<Vec<_>>().into_iter()).unwrap();
            let flags = ServerFlags { url: None, token_file: None, ca_file: None };
            flags.server(|| Ok(config)).map(|server| server.url).map_err(|failure| failure.message)
        };
        assert_eq!(with(&[]).unwrap(), "http://127.0.0.1:7575");
        assert_eq!(with(&[("HTTP__ADDRESS", "[::1]:80")]).unwrap(), "http://[::1]:80");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token").display().to_string();
        std::fs::write(&file, "secret").unwrap();
        assert_eq!(
            with(&[("HTTP__ADDRESS", "0.0.0.0:81"), ("HTTP__TOKEN_FILE", &file)]).unwrap(),
            "http://127.0.0.1:81"
        );
        let refused = |settings: &[(&str, &str)], expected: &str| {
            let said = with(settings).unwrap_err();
            assert!(said.contains(expected), "{said}");
        };
        refused(
            &[("HTTP__ADDRESS", "203.0.113.5:80"), ("HTTP__TOKEN_FILE", &file)],
            "expected --url http://203.0.113.5:80",
        );
        refused(&[("HTTP__TOKENS_FILE", &file)], "expected --token-file");
        refused(&[("HTTP__TLS_CERT_FILE", &file), ("HTTP__TLS_KEY_FILE", &file)], "expected --url https://");
        let flags = ServerFlags { url: Some("http://a:1/".to_string()), token_file: Some(file.into()), ca_file: None };
        let server = flags.server(|| Err(Failure::usage("is not read"))).unwrap();
        assert_eq!((server.url.as_str(), server.token.as_deref()), ("http://a:1", Some("secret")));
    }
}
