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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiRequest {
    /// GET, POST or DELETE.
    pub method: String,
    /// The path, decoded: `/api/v2/silences`.
    pub path: String,
    /// The query's names and values, in order, decoded.
    pub query: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
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
}

impl Answer {
    /// 200 with JSON.
    pub fn ok(body: impl ToString) -> Answer {
        Answer::json(200, body)
    }

    /// JSON with a status.
    pub fn json(status: u16, body: impl ToString) -> Answer {
        Answer { status, kind: "application/json", body: body.to_string().into_bytes() }
    }

    /// An error: a JSON text, as Alertmanager's API has it.
    pub fn error(status: u16, message: &str) -> Answer {
        Answer::json(status, format!("{message:?}"))
    }
}

/// The route on which POST asks and changes nothing.
pub(crate) const SQL_ROUTE: &str = "/api/v1/sql";

/// Routes of the API: those with a `{}` take one segment more.
pub const API_ROUTES: [&str; 15] = [
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
    "/api/openapi.json",
];

/// Takes a request and hands it to whoever knows.
pub(crate) async fn serve(State(status): State<Arc<dyn Status>>, request: Request) -> Response {
    let changes = *request.method() != Method::GET && *request.method() != Method::HEAD;
    if changes && let Err(refused) = may_change(request.headers()) {
        return refused;
    }
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, BODY_BYTES).await else {
        return (StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 1 MiB\n").into_response();
    };
    let query = parts.uri.query().unwrap_or_default().as_bytes();
    let asked = ApiRequest {
        method: if parts.method == Method::HEAD { "GET".to_string() } else { parts.method.to_string() },
        path: parts.uri.path().to_string(),
        query: form_urlencoded::parse(query).into_owned().collect(),
        body: Bytes::into(body),
        accept: text_of(&parts.headers, header::ACCEPT),
        by: parts.extensions.get::<Asker>().map(|asker| asker.0.clone()),
    };
    // What is answered may read files and the log.
    let answered = tokio::task::spawn_blocking(move || status.api(&asked)).await;
    let Ok(Answer { status, kind, body }) = answered else {
        return (StatusCode::INTERNAL_SERVER_ERROR, "\"the request failed\"").into_response();
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, kind), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")], body).into_response()
}

fn text_of(headers: &HeaderMap, name: header::HeaderName) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_string()
}

/// A page of somebody else's can make a browser send a form to this machine: not JSON, and not without saying where it comes from.
#[allow(clippy::result_large_err)]
fn may_change(headers: &HeaderMap) -> Result<(), Response> {
    let text = |name| text_of(headers, name);
    let host = text(header::HOST);
    let origin = text(header::ORIGIN);
    let own = origin.split_once("://").is_some_and(|(_, authority)| authority == host);
    if !origin.is_empty() && !own {
        return Err((StatusCode::FORBIDDEN, "\"the request comes from another site\"").into_response());
    }
    let has_body = headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0")
        || headers.contains_key(header::TRANSFER_ENCODING);
    if has_body && !text(header::CONTENT_TYPE).starts_with("application/json") {
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, "\"expected Content-Type: application/json\"").into_response());
    }
    Ok(())
}
