//! The one authorisation layer: it looks at every request after routing was decided by axum, and denies by default.

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

/// Who may ask.
#[derive(Clone)]
pub enum Access {
    /// Anybody: only for a loopback address.
    Open,
    /// Whoever presents the bearer token with this SHA-256.
    Token([u8; 32]),
}

impl Access {
    /// Access by this token, which is not kept.
    pub fn token(token: &str) -> Self {
        Access::Token(Sha256::digest(token.as_bytes()).into())
    }

    /// Whether this `Authorization` header is good. Digests are compared, so time tells nothing about the token.
    fn allows(&self, authorization: Option<&str>) -> bool {
        match self {
            Access::Open => true,
            Access::Token(expected) => authorization
                .and_then(|header| header.strip_prefix("Bearer "))
                .is_some_and(|token| <[u8; 32]>::from(Sha256::digest(token.trim().as_bytes())) == *expected),
        }
    }
}

/// Whether a request names this machine by what only this machine can mean.
fn is_this_machine(request: &Request) -> bool {
    let host = request.headers().get(header::HOST).and_then(|value| value.to_str().ok());
    let Some(host) = host.and_then(|host| host.parse::<Authority>().ok()) else { return false };
    let name = host.host().trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The layer itself.
pub(crate) async fn authorise(State(access): State<Access>, request: Request, next: Next) -> Response {
    if matches!(access, Access::Open) && !is_this_machine(&request) {
        // Another site's name that leads here: a page of it would be taken for one of ours (DNS rebinding).
        return (StatusCode::FORBIDDEN, "expected the host to be localhost or a loopback address\n").into_response();
    }
    let header = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if access.allows(header) {
        return next.run(request).await;
    }
    (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], "a bearer token is needed\n").into_response()
}
