//! Asking a target for its text.

use std::io::Read;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::exposition::{Dialect, Sample, parse};

/// Bytes of a target's text.
const TEXT_BYTES: u64 = 32 << 20;
/// Bytes of a token.
const TOKEN_BYTES: u64 = 64 << 10;
/// Samples of a target.
const SAMPLES: usize = 100_000;
/// What is asked for: OpenMetrics where there is no other.
const ACCEPT: &str = "text/plain;version=0.0.4,application/openmetrics-text;version=1.0.0;q=0.5";

/// Where, and with what.
#[derive(Debug, Clone)]
pub struct Question {
    /// The address.
    pub url: String,
    /// The file of a bearer token, read each time: tokens are renewed.
    pub token: Option<PathBuf>,
}

/// What a target said, and how long that took.
pub struct Scrape {
    /// All samples, or why there are none.
    pub samples: Result<Vec<Sample>, String>,
    /// How long it took.
    pub seconds: f64,
}

/// Asks questions of one target, each for so long.
pub struct Asker {
    agent: ureq::Agent,
    patience: Duration,
}

impl Asker {
    /// With connections of its own.
    pub fn new(patience: Duration) -> Asker {
        let config = ureq::Agent::config_builder().timeout_global(Some(patience)).http_status_as_error(false);
        let agent = config.user_agent(concat!("tidewatch/", env!("CARGO_PKG_VERSION"))).build().into();
        Asker { agent, patience }
    }

    /// Asks once.
    pub fn scrape(&self, question: &Question) -> Scrape {
        let begun = Instant::now();
        let samples = self.ask(question);
        Scrape { samples, seconds: begun.elapsed().as_secs_f64() }
    }

    fn ask(&self, question: &Question) -> Result<Vec<Sample>, String> {
        let mut request = self.agent.get(&question.url).header("Accept", ACCEPT);
        request = request.header("X-Prometheus-Scrape-Timeout-Seconds", self.patience.as_secs_f64().to_string());
        if let Some(file) = &question.token {
            let mut token = String::new();
            let read = std::fs::File::open(file).and_then(|file| file.take(TOKEN_BYTES).read_to_string(&mut token));
            read.map_err(|error| format!("{}: {error}", file.display()))?;
            request = request.header("Authorization", format!("Bearer {}", token.trim()));
        }
        let answer = request.call().map_err(|error| error.to_string())?;
        if answer.status().as_u16() != 200 {
            return Err(format!("answered {}", answer.status()));
        }
        let kind = answer.headers().get("content-type").and_then(|kind| kind.to_str().ok());
        let dialect = match kind.is_some_and(|kind| kind.starts_with("application/openmetrics-text")) {
            true => Dialect::OpenMetrics,
            false => Dialect::Prometheus,
        };
        let mut bytes = Vec::new();
        let mut body = answer.into_body().into_reader().take(TEXT_BYTES + 1);
        body.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        if bytes.len() as u64 > TEXT_BYTES {
            return Err(format!("more than {} MiB of text", TEXT_BYTES >> 20));
        }
        let text = String::from_utf8(bytes).map_err(|_| "not UTF-8".to_string())?;
        parse(&text, dialect, SAMPLES).map_err(|malformed| malformed.to_string())
    }
}
