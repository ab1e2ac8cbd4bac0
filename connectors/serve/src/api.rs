//! The API's way through HTTP: limits, types, who may change something. What is answered comes from behind [`Api`].

use std::sync::Arc;

use axum::body::{Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::access::Asker;
use crate::server::Status;

/// The largest body that is read.
const BODY_BYTES: usize = 1 << 20;

/// A request to the API.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApiRequest {
    /// GET, POST or DELETE.
    pub method: String,
    /// The path, decoded: `/api/v2/silences`.
    pub path: String,
    /// The query's names and values, in order, decoded.
    pub query: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// The content type of the body, as the client says it.
    pub kind: String,
    /// How the body is packed, as the client says it.
    pub encoding: String,
    /// What content types are accepted, as the client says it.
    pub accept: String,
    /// The name of the token that was presented.
    pub by: Option<String>,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The content type.
    pub kind: &'static str,
    /// The body.
    pub body: Vec<u8>,
    /// Headers besides.
    pub headers: Vec<(&'static str, String)>,
}

impl Answer {
    /// 200 with JSON.
    pub fn ok(body: impl ToString) -> Answer {
        Answer::json(200, body)
    }

    /// Any bytes with a status.
    pub fn of(status: u16, kind: &'static str, body: Vec<u8>) -> Answer {
        Answer { status, kind, body, headers: vec![] }
    }

    /// JSON with a status.
    pub fn json(status: u16, body: impl ToString) -> Answer {
        Answer::of(status, "application/json", body.to_string().into_bytes())
    }

    /// The same, with the seconds after which to ask again.
    #[must_use]
    pub fn again_after(mut self, seconds: u32) -> Answer {
        self.headers.push((header::RETRY_AFTER.as_str(), seconds.to_string()));
        self
    }

    /// An error: a JSON text, as Alertmanager's API has it.
    pub fn error(status: u16, message: &str) -> Answer {
        Answer::json(status, serde_json::Value::from(message))
    }

    /// An error as Prometheus' API has it: an object with the kind of the error, and its text.
    pub fn refused(status: u16, message: &str) -> Answer {
        let kind = match status {
            400 | 403 | 405 | 413 | 415 | 422 => "bad_data",
            404 => "not_found",
            429 => "unavailable",
            503 => "timeout",
            _ => "internal",
        };
        Answer::json(status, serde_json::json!({"status": "error", "errorType": kind, "error": message}))
    }

    /// An error in the form of the API that the path is of.
    pub fn refused_on(path: &str, status: u16, message: &str) -> Answer {
        if path.starts_with("/api/v2/") { Answer::error(status, message) } else { Answer::refused(status, message) }
    }
}

/// The route on which POST asks and changes nothing.
pub(crate) const SQL_ROUTE: &str = "/api/v1/sql";

/// Content types of rows. A page of somebody else's can't make a browser send them without asking us first; nor any of the others here.
const ROW_TYPES: [&str; 3] = ["application/json", "application/x-ndjson", "application/vnd.apache.arrow.stream"];
/// Content types of OTLP.
const OTLP_TYPES: [&str; 2] = ["application/x-protobuf", "application/json"];
/// The largest body of rows, as it is sent.
const ROWS_BYTES: usize = 8 << 20;

/// The content types that a route takes on which rows are written; `None` of every other route.
pub(crate) fn row_types(path: &str) -> Option<&'static [&'static str]> {
    match path {
        "/api/v1/write" => Some(&OTLP_TYPES[..1]),
        "/v1/metrics" | "/v1/logs" | "/api/v1/otlp/v1/metrics" | "/api/v1/otlp/v1/logs" => Some(&OTLP_TYPES),
        _ if path.starts_with("/api/v1/rows/") => Some(&ROW_TYPES),
        _ => None,
    }
}

/// Routes of the API: those with a `{}` take one segment more.
pub const API_ROUTES: [&str; 21] = [
    "/api/v2/status",
    "/api/v2/receivers",
    "/api/v2/alerts",
    "/api/v2/alerts/groups",
    "/api/v2/silences",
    "/api/v2/silence/{}",
    "/api/v1/alerts",
    "/api/v1/rules",
    "/api/v1/alerts/{}",
    "/api/v1/alerts/{}/ack",
    "/api/v1/acks",
    "/api/v1/rules/{}",
    "/api/v1/history",
    SQL_ROUTE,
    "/api/v1/rows/{}",
    "/api/v1/write",
    "/v1/metrics",
    "/v1/logs",
    "/api/v1/otlp/v1/metrics",
    "/api/v1/otlp/v1/logs",
    "/api/openapi.json",
];

/// Takes a request and hands it to whoever knows.
pub(crate) async fn serve(State(status): State<Arc<dyn Status>>, request: Request) -> Response {
    let changes = *request.method() != Method::GET && *request.method() != Method::HEAD;
    let of_rows = row_types(request.uri().path());
    let kinds = of_rows.unwrap_or(&ROW_TYPES[..1]);
    let path = request.uri().path().to_string();
    if changes && let Err((status, reason)) = may_change(request.headers(), kinds) {
        return respond(Answer::refused_on(&path, status, &reason));
    }
    let (parts, body) = request.into_parts();
    let most = if of_rows.is_some() { ROWS_BYTES } else { BODY_BYTES };
    let Ok(body) = to_bytes(body, most).await else {
        return respond(Answer::refused_on(&path, 413, &format!("the body is larger than {} MiB", most >> 20)));
    };
    let query = parts.uri.query().unwrap_or_default().as_bytes();
    let asked = ApiRequest {
        method: if parts.method == Method::HEAD { "GET".to_string() } else { parts.method.to_string() },
        path: path.clone(),
        query: form_urlencoded::parse(query).into_owned().collect(),
        body: Bytes::into(body),
        kind: text_of(&parts.headers, header::CONTENT_TYPE),
        encoding: text_of(&parts.headers, header::CONTENT_ENCODING),
        accept: text_of(&parts.headers, header::ACCEPT),
        by: parts.extensions.get::<Asker>().map(|asker| asker.0.clone()),
    };
    // What is answered may read files and the log.
    let answered = tokio::task::spawn_blocking(move || status.api(&asked)).await;
    respond(answered.unwrap_or_else(|_| Answer::refused_on(&path, 500, "the request failed")))
}

fn respond(Answer { status, kind, body, headers }: Answer) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let own = [(header::CONTENT_TYPE, kind), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    let mut response = (status, own, body).into_response();
    for (name, value) in headers {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(header::HeaderName::from_static(name), value);
        }
    }
    response
}

fn text_of(headers: &HeaderMap, name: header::HeaderName) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_string()
}

/// A page of somebody else's can make a browser send a form to this machine: not JSON, and not without saying where it comes from.
fn may_change(headers: &HeaderMap, kinds: &[&str]) -> Result<(), (u16, String)> {
    let text = |name| text_of(headers, name);
    let host = text(header::HOST);
    let origin = text(header::ORIGIN);
    let own = origin.split_once("://").is_some_and(|(_, authority)| authority == host);
    if !origin.is_empty() && !own {
        return Err((403, "the request comes from another site".to_string()));
    }
    let has_body = headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0")
        || headers.contains_key(header::TRANSFER_ENCODING);
    let kind = text(header::CONTENT_TYPE);
    if has_body && !kinds.iter().any(|known| kind.starts_with(known)) {
        return Err((415, format!("expected Content-Type: {}", kinds.join(", "))));
    }
    Ok(())
}
