//! One POST, and what its answer means: the same for every channel over HTTP.

use std::time::Duration;

use tidewatch_model::Span;
use tidewatch_model::limits::NOTIFY_TIMEOUT;
use tidewatch_model::ports::Delivery;
use ureq::Agent;

/// As much of an answer is read.
const ANSWER_BYTES: u64 = 64 << 10;

/// A request.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// POST, or what a gateway wants.
    pub method: String,
    /// Where to: often a secret.
    pub url: String,
    /// Headers besides the usual.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl Request {
    /// A POST of JSON.
    pub fn json(url: &str, body: &serde_json::Value) -> Request {
        Request {
            method: "POST".to_string(),
            url: url.to_string(),
            headers: vec![("Content-Type".to_string(), "application/json".to_string())],
            body: body.to_string(),
        }
    }
}

impl Request {
    /// The request for people: of its URL, which may be a secret, only the host.
    pub fn preview(&self) -> String {
        let host = self.url.parse::<ureq::http::Uri>().ok().and_then(|url| url.host().map(str::to_string));
        let body = serde_json::from_str::<serde_json::Value>(&self.body);
        let body = body.map_or_else(|_| self.body.clone(), |body| format!("{body:#}"));
        format!("{} {}\n{body}", self.method, host.unwrap_or_default())
    }
}

/// Sends requests. No redirects are followed: the operator named this address and no other.
#[derive(Debug, Clone)]
pub struct Client {
    agent: Agent,
}

impl Default for Client {
    fn default() -> Self {
        Client::with_timeout(NOTIFY_TIMEOUT)
    }
}

impl Client {
    /// Each attempt takes at most so long.
    pub fn with_timeout(timeout: Span) -> Client {
        let agent = Agent::config_builder()
            .timeout_global(Some(Duration::from_micros(timeout.0.max(0) as u64)))
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            .user_agent(concat!("tidewatch/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        Client { agent }
    }

    /// One attempt. `who` stands in errors in place of the URL, which may be a secret.
    pub fn send(&self, who: &str, request: &Request) -> Delivery {
        self.send_and_read(who, request, |_| Ok(()))
    }

    /// The same; `accepts` looks at the body of a good answer, and says why it is none.
    pub fn send_and_read(&self, who: &str, request: &Request, accepts: fn(&str) -> Result<(), String>) -> Delivery {
        let built = ureq::http::Request::builder().method(request.method.as_str()).uri(&request.url);
        let built = request.headers.iter().fold(built, |built, (name, value)| built.header(name, value));
        let Ok(built) = built.body(request.body.clone()) else {
            return Delivery::GiveUp { error: format!("{who}: its URL or a header is malformed") };
        };
        let mut response = match self.agent.run(built) {
            Ok(response) => response,
            Err(error) => {
                let perhaps = !matches!(error, ureq::Error::HostNotFound | ureq::Error::ConnectionFailed);
                return Delivery::Retry { after: None, error: format!("{who}: {}", kind_of(&error)), perhaps };
            }
        };
        let status = response.status().as_u16();
        let error = format!("{who}: HTTP {status}");
        match status {
            200..=299 => {
                let body = response.body_mut().with_config().limit(ANSWER_BYTES).read_to_string().unwrap_or_default();
                match accepts(&body) {
                    Ok(()) => Delivery::Delivered,
                    Err(problem) => Delivery::Retry { after: None, error: format!("{who}: {problem}"), perhaps: false },
                }
            }
            408 | 429 | 500..=599 => {
                let after =
                    response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse::<i64>().ok());
                let after = after.map(|seconds| Span::seconds(seconds.clamp(0, 3_600)));
                Delivery::Retry { after, error, perhaps: status >= 500 }
            }
            _ => Delivery::GiveUp { error },
        }
    }
}

fn kind_of(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(_) => "no answer in time".to_string(),
        ureq::Error::HostNotFound => "the host's name is not known".to_string(),
        ureq::Error::Io(error) => error.kind().to_string(),
        ureq::Error::ConnectionFailed => "no connection".to_string(),
        ureq::Error::Protocol(_) => "the answer is not HTTP".to_string(),
        _ => "the request failed".to_string(),
    }
}
