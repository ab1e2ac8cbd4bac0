//! A running Tidewatch, asked over its API.

use std::path::PathBuf;

use serde_json::Value;
use tidewatch_serve::Asking;

use crate::failure::Failure;

/// Where it is, and who asks.
#[derive(Debug, Clone, clap::Args)]
pub struct ServerFlags {
    /// The running Tidewatch.
    #[arg(long, value_name = "URL", env = "TIDEWATCH_URL", default_value = "http://127.0.0.1:7575")]
    url: String,
    /// A file with the bearer token that it asks for.
    #[arg(long, value_name = "FILE", env = "TIDEWATCH_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// A file with the certificates of authorities that are trusted, in PEM, in the place of the usual ones.
    #[arg(long, value_name = "FILE", env = "TIDEWATCH_CA_FILE")]
    ca_file: Option<PathBuf>,
}

impl ServerFlags {
    /// Asks; the answer's JSON.
    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let token = self.token_file.as_ref().map(|file| {
            let text = std::fs::read_to_string(file);
            text.map_err(|error| Failure::usage(format!("{}: {error}", file.display())))
        });
        let token = token.transpose()?;
        let ca = self
            .ca_file
            .as_ref()
            .map(|file| std::fs::read(file).map_err(|error| Failure::usage(format!("{}: {error}", file.display()))));
        let ca = ca.transpose()?;
        let asking = Asking { token: token.as_deref().map(str::trim), ca: ca.as_deref() };
        let url = format!("{}{path}", self.url.trim_end_matches('/'));
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
