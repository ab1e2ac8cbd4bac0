//! The one authorisation layer: it looks at every request after routing was decided by axum, and denies by default.

use axum::extract::{Request, State};
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

/// The layer itself.
pub(crate) async fn authorise(State(access): State<Access>, request: Request, next: Next) -> Response {
    let header = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if access.allows(header) {
        return next.run(request).await;
    }
    (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], "a bearer token is needed\n").into_response()
}
